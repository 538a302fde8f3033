-- ARGV from 5: user, client, age of its last sign of life, whether it was closed (1 or 0: lost), by turns
for i = 5, #ARGV, 4 do
  local it = load(ARGV[i])
  if it.leases[ARGV[i + 1]] then
    drop(it, ARGV[i + 1], now - tonumber(ARGV[i + 2]))
    if ARGV[i + 3] == '1' then
      it.grace = now + GRACE
    end
    settle(it)
  end
end
return 1
