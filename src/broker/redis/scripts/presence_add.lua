-- ARGV from 3: ttl in milliseconds, then client and info by turns
local till = string.format('%.0f', now + ARGV[3])
-- Into an empty channel nobody can be told of a join; and one that Redis has lost is not joined, but brought back.
local told = redis.call('EXISTS', KEYS[1]) == 1
for i = 4, #ARGV, 2 do
  local new = redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) == 1
  redis.call('ZADD', KEYS[2], till, ARGV[i])
  if new and told then
    announce('j', ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
