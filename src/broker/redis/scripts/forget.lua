-- KEYS[1] position: generation, epoch, offset, seq, bytes; KEYS[2] stream
-- ARGV: seq, above which something must not be forgotten
-- The seq stays, so that repeats of what was published are known as such. Returns whether it was forgotten.
if above(redis.call('HGET', KEYS[1], 'seq') or '0', ARGV[1]) then
  return 0
end
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[1], 'epoch', 'offset', 'bytes')
return 1
