-- What all scripts about presence begin with.
-- KEYS[1] client -> its info; KEYS[2] client -> when its lease ends, in milliseconds
-- ARGV: the channel's pub/sub channel; how many clients it may have for joins and leaves to be told
-- Redis's clock, so that the gateways' clocks need not agree.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function announce(kind, info)
  if redis.call('HLEN', KEYS[1]) <= tonumber(ARGV[2]) then
    redis.call(PUBLISH, ARGV[1], kind .. info)
  end
end

local function remove(client)
  local info = redis.call('HGET', KEYS[1], client)
  if info then
    announce('l', info)
    redis.call('HDEL', KEYS[1], client)
  end
  redis.call('ZREM', KEYS[2], client)
end

for _, client in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now))) do
  remove(client)
end

