-- ARGV[3] how many clients are listed at most. Returns their infos, or their number where there are more.
local clients = redis.call('HLEN', KEYS[1])
if clients > tonumber(ARGV[3]) then
  return clients
end
return redis.call('HVALS', KEYS[1])
