-- ARGV[5] user. Returns the number of the user's live connections.
return others(load(ARGV[5]), nil)
