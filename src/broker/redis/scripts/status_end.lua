-- ARGV from 5, for each lease: user, client, age of the last sign of life, 1 if the connection was closed (0: lost)
for i = 5, #ARGV, 4 do
  local it = load(ARGV[i])
  if it.leases[ARGV[i + 1]] then
    drop(it, ARGV[i + 1], now - tonumber(ARGV[i + 2]))
    if ARGV[i + 3] == '1' then
      set(it, 'grace', now + GRACE)
    end
    recompute(it)
  end
end
return 1
