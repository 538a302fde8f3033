-- ARGV from 3: ttl in milliseconds, how many others may be there (-1: any number), then client and info by turns
-- Returns 0 where there are as many already, and this one has not been added.
local limit = tonumber(ARGV[4])
if limit >= 0 and redis.call('HLEN', KEYS[1]) - redis.call('HEXISTS', KEYS[1], ARGV[5]) >= limit then
  return 0
end
local till = string.format('%.0f', now + ARGV[3])
-- Into an empty channel nobody can be told of a join; and one that Redis has lost is not joined, but brought back.
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
