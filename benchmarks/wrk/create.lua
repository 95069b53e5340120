-- POST /jobs/create with a payload of about 200 bytes; every answer has to be 201.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
-- By the environment: a command line can be seen by all.
local key = os.getenv("BENCH_KEY")
if key and key ~= "" then wrk.headers["Authorization"] = "Bearer " .. key end
wrk.body = string.format('{"queue":"default","type":"bench","payload":{"sent":0,"pad":"%s"}}', string.rep("x", 160))

local threads = {}
function setup(thread) table.insert(threads, thread) end
wrong = 0
function response(status) if status ~= 201 then wrong = wrong + 1 end end
function done(summary, latency)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  for _, thread in ipairs(threads) do errors = errors + thread:get("wrong") end
  print(string.format('{"requests":%d,"seconds":%.3f,"p99_ms":%.3f,"errors":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(99) / 1e3, errors))
end
