-- KEYS[1] position: its field bytes; KEYS[2] stream
-- ARGV: maximum bytes of payload. Returns the remaining bytes.
local bytes = shrink(KEYS[2], math.huge, tonumber(redis.call('HGET', KEYS[1], 'bytes') or '0'), tonumber(ARGV[1]))
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'bytes', string.format('%.0f', bytes))
end
return bytes
