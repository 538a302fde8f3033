-- KEYS[1] position: generation, epoch, offset, seq, bytes; KEYS[2] stream
-- ARGV: epoch for a new history, position ttl in milliseconds, generation; then nothing for the position alone,
--       or XRANGE / XREVRANGE, two ids, count, and the maximum bytes of payload to return
-- Returns epoch, offset, entries. The first entry may exceed the maximum.
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
  -- In pieces: entries beyond the maximum are not read. The size of the first piece's entries decides the next piece.
  local from, count, most, bytes, piece = ARGV[5], tonumber(ARGV[7]), tonumber(ARGV[8]), 0, 16
  while count > 0 do
    piece = math.min(piece, count)
    local found = redis.call(ARGV[4], KEYS[2], from, ARGV[6], 'COUNT', piece)
    for _, entry in ipairs(found) do
      bytes = bytes + #entry[2][2]
      if bytes > most and #entries > 0 then
        return { epoch, offset, entries }
      end
      entries[#entries + 1] = entry
    end
    if #found < piece then
      break
    end
    count = count - piece
    from = '(' .. found[piece][1]
    piece = math.max(1, math.min(256, math.floor((most - bytes) * #entries / math.max(bytes, 1)) + 1))
  end
end
return { epoch, offset, entries }
