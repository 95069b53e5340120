-- GET /jobs/{id} over the first thousand jobs; every answer has to be 200.
local id = 0
function request()
  id = id % 1000 + 1
  return wrk.format("GET", wrk.path .. "/" .. id)
end

local threads = {}
function setup(thread) table.insert(threads, thread) end
wrong = 0
function response(status) if status ~= 200 then wrong = wrong + 1 end end
function done(summary, latency)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  for _, thread in ipairs(threads) do errors = errors + thread:get("wrong") end
  print(string.format('{"requests":%d,"seconds":%.3f,"p99_ms":%.3f,"errors":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(99) / 1e3, errors))
end
