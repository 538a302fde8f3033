-- KEYS[1] position: generation, epoch, offset, seq, bytes; KEYS[2] stream
-- ARGV: seq; a history with a publication above this number stays
-- Clears the history; the next use starts a new epoch. The field seq stays, so that repeats are still recognised.
-- Returns 1 if the history was cleared, else 0.
if above(redis.call('HGET', KEYS[1], 'seq') or '0', ARGV[1]) then
  return 0
end
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[1], 'epoch', 'offset', 'bytes')
return 1
