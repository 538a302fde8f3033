-- ARGV from 3: ttl in milliseconds, 1 for clients that arrive independently (0: renewals, or channels of one client), then
-- alternating client and info
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
  told = told or ARGV[4] == '1'
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
