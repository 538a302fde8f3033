-- ARGV from 3: clients
for i = 3, #ARGV do
  remove(ARGV[i])
end
return 1
