-- KEYS[1] position: epoch, offset, seq; KEYS[2] stream
-- ARGV: epoch for a new history, position ttl in milliseconds, then nothing for the position alone,
--       or XRANGE / XREVRANGE, its two ids, and its count
-- Returns epoch, offset, entries.
local position = redis.call('HMGET', KEYS[1], 'epoch', 'offset')
local epoch, offset = position[1], position[2] or '0'
if not epoch then
  redis.call('DEL', KEYS[2])
  epoch, offset = ARGV[1], '0'
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', offset)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])

local entries = {}
if ARGV[3] then
  entries = redis.call(ARGV[3], KEYS[2], ARGV[4], ARGV[5], 'COUNT', ARGV[6])
end
return { epoch, offset, entries }
