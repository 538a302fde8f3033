-- ARGV from 3: ttl in milliseconds, maximum number of other clients (-1: no limit), then alternating client and info
-- Returns 1, or 0 without adding anything if the channel already has the maximum number of other clients.
local limit = tonumber(ARGV[4])
if limit >= 0 and redis.call('HLEN', KEYS[1]) - redis.call('HEXISTS', KEYS[1], ARGV[5]) >= limit then
  return 0
end
local till = string.format('%.0f', now + ARGV[3])
-- An empty channel has no client to tell of a join. Clients of a channel that Redis has lost are restored, not new.
local told = redis.call('EXISTS', KEYS[1]) == 1
for i = 5, #ARGV, 2 do
  local new = redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) == 1
  redis.call('ZADD', KEYS[2], till, ARGV[i])
  if new then
    count(ARGV[i + 1], 1)
  end
  if new and told then
    announce('j', ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if KEYS[3] then
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
return 1
