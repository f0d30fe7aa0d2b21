-- wrk: one text a request, each request the next one of TEXTS (a file with one JSON body a line)
local bodies, at = {}, 0
for line in io.lines(os.getenv("TEXTS")) do bodies[#bodies + 1] = line end
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", "/classify", { ["Content-Type"] = "application/json" }, bodies[at])
end
