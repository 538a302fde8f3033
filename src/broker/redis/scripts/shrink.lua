-- Drops a stream's oldest publications down to `size` publications and `most` bytes of payload. `bytes`: the stream's
-- current payload. Returns the remaining bytes.
local function shrink(stream, size, bytes, most)
  local length = redis.call('XLEN', stream)
  while length > 0 and (length > size or bytes > most) do
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    bytes = math.max(bytes - #oldest[2][2], 0)
    length = length - 1
    redis.call('XTRIM', stream, 'MAXLEN', '=', length)
  end
  return length > 0 and bytes or 0
end

