-- ARGV[3]: client
remove(ARGV[3])
return 1
