-- Redis's clock, so that the gateways' clocks need not agree.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- KEYS[1] client -> its info; KEYS[2] client -> when its lease ends, in milliseconds.
for _, client in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now))) do
  redis.call('HDEL', KEYS[1], client)
  redis.call('ZREM', KEYS[2], client)
end

