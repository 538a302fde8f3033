-- KEYS[1] position: generation, epoch, offset, seq, bytes (of payload in the stream); KEYS[2] stream
-- ARGV: seq, seq of the previous entry of the batch in this channel (0: none), data, epoch for a new history,
--       maximum number of publications, history ttl and position ttl in milliseconds, pub/sub channel, generation,
--       time of the outbox row, maximum bytes of the history, in a cluster also the prefix of the message (the barrier)
-- Returns the bytes of the history, or -1 for a repeat.
local seq, before, data = ARGV[1], ARGV[2], ARGV[3]
local generation = ARGV[9]
local position = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'seq', 'generation', 'bytes')
local epoch, offset, last, its = position[1], position[2] or '0', position[3] or '0', position[4] or '0'

if above(its, generation) then
  return redis.error_reply('STALE another gateway has begun a new generation')
elseif its ~= generation then
  epoch, offset, last = nil, '0', '0'
end

-- A pipeline is not atomic: the previous entry may have failed alone (script missing, no memory). Accepting this entry
-- would make the repeat of the previous entry look like an old one, and the previous entry would be lost.
if above(before, last) then
  return redis.error_reply('GAP the previous entry of the batch was not published')
end
if not above(seq, last) then
  local newest = seq == last and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if newest and newest[2][2] ~= data then
    return redis.error_reply('CONFLICT another event was published under this number')
  end
  return -1
end

if not epoch then
  -- Drop the remains of an earlier history.
  redis.call('DEL', KEYS[2])
  epoch, offset = ARGV[4], '0'
end
offset = string.format('%.0f', tonumber(offset) + 1)

-- XADD, which can fail for lack of memory, comes first: a script that ends early undoes nothing.
local kept = redis.call('EXISTS', KEYS[2]) == 1 and tonumber(position[5] or '0') or 0
redis.call('XADD', KEYS[2], offset .. '-0', 'd', data)
kept = shrink(KEYS[2], tonumber(ARGV[5]), kept + #data, tonumber(ARGV[11]))
redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', offset, 'seq', seq, 'generation', generation,
  'bytes', string.format('%.0f', kept))
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call(PUBLISH, ARGV[8], (ARGV[12] or '') .. 'p' .. offset .. ':' .. epoch .. ':' .. ARGV[10] .. ':' .. data)
return kept
