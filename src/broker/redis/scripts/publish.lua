-- Publishes entries in order, and then moves the mark, if a mark is given. The first error ends the script.
-- KEYS: for each entry, the position (hash: generation, epoch, offset, seq, bytes of payload in the stream) and the
--       stream; then the mark, if it moves
-- ARGV: prefix of the epochs of new histories, maximum number of publications of a history, history ttl and position ttl in
--       milliseconds, generation, the new mark or ''; then for each entry: seq, seq of the previous entry of the batch in
--       this channel (0: none), data, pub/sub channel, time of the outbox row, maximum bytes of the history, and the
--       prefix of the message (in a cluster: the barrier)
-- Returns the bytes of each entry's history, or -1 for a repeat; last, the current mark, if a mark was given.
local EPOCH, SIZE, TTL, POSITION_TTL, GENERATION = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

local function publish(number, key, stream, seq, before, data, live, at, most, prefix)
  local position = redis.call('HMGET', key, 'epoch', 'offset', 'seq', 'generation', 'bytes')
  local epoch, offset, last, its = position[1], position[2] or '0', position[3] or '0', position[4] or '0'

  if above(its, GENERATION) then
    return redis.error_reply('STALE another gateway has begun a new generation')
  elseif its ~= GENERATION then
    epoch, offset, last = nil, '0', '0'
  end

  -- A pipeline is not atomic: an earlier call with the previous entry may have failed alone (script missing, no memory).
  -- Accepting this entry would make the repeat of the previous entry look like an old one, and the previous entry would
  -- be lost.
  if above(before, last) then
    return redis.error_reply('GAP the previous entry of the batch was not published')
  end
  if not above(seq, last) then
    local newest = seq == last and redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if newest and newest[2][2] ~= data then
      return redis.error_reply('CONFLICT another event was published under this number')
    end
    return -1
  end

  if not epoch then
    -- Drop the remains of an earlier history.
    redis.call('DEL', stream)
    epoch, offset = EPOCH .. number, '0'
  end
  offset = string.format('%.0f', tonumber(offset) + 1)

  -- XADD, which can fail for lack of memory, comes first: a script that ends early undoes nothing.
  local kept = redis.call('EXISTS', stream) == 1 and tonumber(position[5] or '0') or 0
  redis.call('XADD', stream, offset .. '-0', 'd', data)
  kept = shrink(stream, SIZE, kept + #data, tonumber(most))
  redis.call('HSET', key, 'epoch', epoch, 'offset', offset, 'seq', seq, 'generation', GENERATION,
    'bytes', string.format('%.0f', kept))
  redis.call('PEXPIRE', stream, TTL)
  redis.call('PEXPIRE', key, POSITION_TTL)
  redis.call(PUBLISH, live, prefix .. 'p' .. offset .. ':' .. epoch .. ':' .. at .. ':' .. data)
  return kept
end

local answers = {}
local key = 1
for i = 7, #ARGV, 7 do
  local answer = publish(#answers, KEYS[key], KEYS[key + 1], unpack(ARGV, i, i + 6))
  if type(answer) == 'table' then
    return answer
  end
  answers[#answers + 1] = answer
  key = key + 2
end
if ARGV[6] ~= '' then
  answers[#answers + 1] = advance(KEYS[key], ARGV[6])
end
return answers
