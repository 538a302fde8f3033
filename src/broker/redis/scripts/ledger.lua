-- Ledger of history sizes, for a bucket of channels.
-- KEYS[1] sorted set: channel -> bytes of payload; KEYS[2] sorted set: channel -> end of the history, in
-- milliseconds; KEYS[3] sum of the bytes
-- ARGV: a history's ttl in milliseconds, 1 after publications (0: after trimming), then alternating channel and bytes.
-- Returns the sum.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) < 3 then
  -- Redis has evicted a key: the remaining keys do not match.
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
end
local sum = tonumber(redis.call('GET', KEYS[3]) or '0')

local function set(channel, bytes)
  sum = sum - tonumber(redis.call('ZSCORE', KEYS[1], channel) or '0') + bytes
  if bytes > 0 then
    redis.call('ZADD', KEYS[1], bytes, channel)
  else
    redis.call('ZREM', KEYS[1], channel)
    redis.call('ZREM', KEYS[2], channel)
  end
end

for i = 3, #ARGV, 2 do
  if ARGV[2] == '1' or redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    set(ARGV[i], tonumber(ARGV[i + 1]))
  end
  if ARGV[2] == '1' and ARGV[i + 1] ~= '0' then
    redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[1]), ARGV[i])
  end
end
for _, channel in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, 1000)) do
  set(channel, 0)
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('SET', KEYS[3], string.format('%.0f', sum))
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, ARGV[1])
  end
else
  redis.call('DEL', KEYS[2], KEYS[3])
  sum = 0
end
return sum
