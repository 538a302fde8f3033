-- KEYS[1] position: generation, epoch, offset, seq; KEYS[2] stream
-- ARGV: epoch for a new history, position ttl in milliseconds, generation, then nothing for the position alone,
--       or XRANGE / XREVRANGE, its two ids, and its count
-- Returns epoch, offset, entries.
local position = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'generation')
local epoch, offset = position[1], position[2] or '0'
local generation = position[3] or '0'
if above(ARGV[3], generation) then
  redis.call('DEL', KEYS[1])
  epoch, generation = nil, ARGV[3]
end
if not epoch then
  redis.call('DEL', KEYS[2])
  epoch, offset = ARGV[1], '0'
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', offset, 'generation', generation)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])

local entries = {}
if ARGV[4] then
  entries = redis.call(ARGV[4], KEYS[2], ARGV[5], ARGV[6], 'COUNT', ARGV[7])
end
return { epoch, offset, entries }
