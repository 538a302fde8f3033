-- ARGV[3] maximum number of clients to list. Returns the infos, or above the maximum the number of clients.
local clients = redis.call('HLEN', KEYS[1])
if clients > tonumber(ARGV[3]) then
  return clients
end
return redis.call('HVALS', KEYS[1])
