-- Drops a stream's oldest publications down to `size` publications and `most` bytes of payload. `bytes`: the stream's
-- current payload. Returns the remaining bytes. Usually one publication is dropped; after a lower limit, many, which are
-- read in growing pieces.
local function shrink(stream, size, bytes, most)
  local length, piece = redis.call('XLEN', stream), 1
  while length > 0 and (length > size or bytes > most) do
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', piece)) do
      if length <= size and bytes <= most then
        break
      end
      bytes = math.max(bytes - #entry[2][2], 0)
      length = length - 1
    end
    redis.call('XTRIM', stream, 'MAXLEN', '=', length)
    piece = math.min(2 * piece, 256)
  end
  return length > 0 and bytes or 0
end

