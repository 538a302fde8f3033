-- Common beginning of all presence scripts: removes expired clients.
-- KEYS[1] client -> info; KEYS[2] client -> end of the lease, in milliseconds; KEYS[3] user -> number of clients, and
-- '' -> number of counted clients
-- ARGV: the channel's pub/sub channel; maximum number of clients up to which joins and leaves are announced
-- Times are by Redis's clock, so that the gateways' clocks need not agree.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function announce(kind, info)
  if redis.call('HLEN', KEYS[1]) <= tonumber(ARGV[2]) then
    redis.call(PUBLISH, ARGV[1], kind .. info)
  end
end

-- Counts a client's arrival (1) or departure (-1). Guests, with the user '', count as clients only.
local function count(info, by)
  local readable, decoded = pcall(cjson.decode, info)
  local user = readable and type(decoded) == 'table' and decoded.user
  redis.call('HINCRBY', KEYS[3], '', by)
  if type(user) == 'string' and user ~= '' and redis.call('HINCRBY', KEYS[3], user, by) <= 0 then
    redis.call('HDEL', KEYS[3], user)
  end
end

local function remove(client)
  local info = redis.call('HGET', KEYS[1], client)
  if info then
    announce('l', info)
    redis.call('HDEL', KEYS[1], client)
    count(info, -1)
  end
  redis.call('ZREM', KEYS[2], client)
end

for _, client in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now))) do
  remove(client)
end

