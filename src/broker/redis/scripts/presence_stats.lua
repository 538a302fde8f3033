-- Returns the number of clients and the number of users.
local clients = redis.call('HLEN', KEYS[1])
if tonumber(redis.call('HGET', KEYS[3], '') or '0') ~= clients then
  -- Redis has lost the counts, or a gateway of an earlier version has changed the clients: count again.
  redis.call('DEL', KEYS[3])
  for _, info in ipairs(redis.call('HVALS', KEYS[1])) do
    count(info, 1)
  end
  redis.call('PEXPIRE', KEYS[3], math.max(redis.call('PTTL', KEYS[1]), 1))
end
return { clients, redis.call('HLEN', KEYS[3]) - redis.call('HEXISTS', KEYS[3], '') }
