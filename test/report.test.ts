import { assert, describe, it } from "@effect/vitest"
import { Exit } from "effect"
import { Reason } from "../src/internal/phase.ts"
import { began, duration, ended, type Report, type Status, waiting } from "../src/internal/report.ts"

const status: Status = {
  listeners: [
    {
      name: "api",
      kind: "http",
      address: ":3007",
      state: "open",
      connections: 2,
      inFlight: 1,
      oldest: "GET /slow for 2s"
    },
    { name: "idle", kind: "http", address: ":3008", state: "open", connections: 0, inFlight: 0, oldest: undefined }
  ],
  sections: [{ name: "job", age: 61_500 }],
  finalizers: [{ name: "flush", age: 40 }]
}

const report: Report = {
  reason: Reason.Signal({ signal: "SIGTERM" }),
  forced: true,
  millis: 27_040,
  listeners: [
    {
      name: "api",
      kind: "http",
      address: ":3007",
      drained: 3,
      cut: 1,
      abandoned: 1,
      forced: true,
      cutWork: ["GET /slow from 127.0.0.1 after 26s"],
      millis: 25_000
    }
  ],
  sections: [{ name: "job", age: 86_500 }],
  finalizers: [{ name: "flush", outcome: "timed out", exit: Exit.void, millis: 2000 }],
  hung: ['finalizer "database" for 2s']
}

describe("report", () => {
  it("says what begins, why, and how long it may take", () => {
    const { reason } = report
    assert.strictEqual(
      began(reason, { listeners: [], sections: [], finalizers: [] }, { timeout: 25_000, lameDuck: 0 }),
      "Shutting down (SIGTERM). At most 25s. Open: nothing"
    )
    assert.match(
      began(reason, status, { timeout: Number.POSITIVE_INFINITY, lameDuck: 5000 }),
      /^Shutting down \(SIGTERM\)\. No time limit\. Lame duck for 5s first\. Open: api/
    )
  })

  it("names what is open, and nothing that is not", () => {
    assert.deepStrictEqual(waiting(status), [
      "api: 2 connections, 1 in flight, oldest GET /slow for 2s",
      'busy "job" for 61.5s',
      'finalizer "flush" for 40ms'
    ])
  })

  it("says how it ended, with everything that was cut or hung by name", () => {
    assert.deepStrictEqual(ended(report).split("\n"), [
      "Shutdown cut at its deadline after 27s (SIGTERM)",
      "  api: 3 drained, 1 cut, 1 abandoned, 25s",
      "    cut: GET /slow from 127.0.0.1 after 26s",
      '  busy "job": cut after 86.5s',
      '  finalizer "flush": timed out after 2s',
      '  hung: finalizer "database" for 2s'
    ])
  })

  it("writes durations as people say them", () => {
    assert.deepStrictEqual([0, 12.4, 999, 1000, 1549, 90_000, Number.POSITIVE_INFINITY].map(duration), [
      "0ms",
      "12ms",
      "999ms",
      "1s",
      "1.5s",
      "90s",
      "for ever"
    ])
  })
})
