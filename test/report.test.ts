import { assert, describe, it } from "@effect/vitest"
import { Cause, Exit, Schema } from "effect"
import { KmsReport } from "effect-kms"
import { Reason } from "../src/internal/phase.ts"
import type { Report, Status } from "../src/internal/report.ts"
import { began, duration, waiting } from "../src/internal/text.ts"

const listener = { kind: "http", phase: "open", accepted: 7, drained: 0, cut: 0, abandoned: 0, oldest: [] } as const

const status: Status = {
  phase: "Draining",
  started: true,
  reason: Reason.Signal({ signal: "SIGTERM" }),
  left: 21_000,
  listeners: [
    {
      ...listener,
      name: "api",
      address: ":3007",
      phase: "draining",
      connections: 2,
      inFlight: 1,
      drained: 3,
      oldest: [{ what: "GET /slow", peer: "10.0.0.7:4312", age: 2000 }],
      millis: 4000
    },
    { ...listener, name: "idle", address: ":3008", connections: 0, inFlight: 0 }
  ],
  sections: [
    { name: "job", inFlight: 1, age: 61_500 },
    { name: "mail", inFlight: 3, age: 400 }
  ],
  finalizers: [{ name: "flush", age: 40 }]
}

const report: Report = {
  reason: Reason.Signal({ signal: "SIGTERM" }),
  forced: true,
  startedAt: 1_795_000_000_000,
  millis: 27_040,
  phases: [
    { phase: "LameDuck", from: 0, to: 5000 },
    { phase: "Draining", from: 5000, to: 25_000 },
    { phase: "Unwinding", from: 25_000, to: 27_040 }
  ],
  listeners: [
    {
      name: "api",
      kind: "http",
      address: ":3007",
      drained: 3,
      cut: 1,
      abandoned: 1,
      forced: true,
      cutWork: ["GET /slow from 127.0.0.1:4312 after 26s"],
      from: 5000,
      to: 25_000
    },
    {
      name: "metrics",
      kind: "http",
      address: ":9000",
      drained: 0,
      cut: 0,
      abandoned: 0,
      forced: false,
      cutWork: [],
      from: 27_000,
      to: 27_000
    }
  ],
  sections: [{ name: "job", drained: 0, cut: 1, abandoned: 0, from: 0, to: 25_000 }],
  finalizers: [
    { name: "cache", outcome: "failed", error: "Error: gone", from: 25_000, to: 25_010 },
    { name: "flush", outcome: "timed out", from: 25_010, to: 27_010 }
  ],
  hung: ['finalizer "database" for 2s']
}

const clean: Report = {
  ...report,
  forced: false,
  millis: 1200,
  phases: [
    { phase: "Draining", from: 0, to: 900 },
    { phase: "Unwinding", from: 900, to: 1200 }
  ],
  listeners: [{ ...report.listeners[1]!, name: "http :3007", drained: 12, from: 0, to: 850 }],
  sections: [{ name: "report", drained: 1, cut: 0, abandoned: 0, from: 0, to: 900 }],
  finalizers: [{ name: "database", outcome: "released", from: 1000, to: 1200 }],
  hung: []
}

describe("report", () => {
  it("says what begins, why, and how long it may take", () => {
    const { reason } = report
    assert.strictEqual(
      began(reason, { ...status, listeners: [], sections: [], finalizers: [] }, { timeout: 25_000, lameDuck: 0 }),
      "Shutting down (SIGTERM). At most 25s. Open: nothing"
    )
    assert.match(
      began(reason, status, { timeout: Number.POSITIVE_INFINITY, lameDuck: 5000 }),
      /^Shutting down \(SIGTERM\)\. No time limit\. Lame duck for 5s first\. Open: api/
    )
  })

  it("names what is open, and nothing that is not", () => {
    assert.deepStrictEqual(waiting(status), [
      "api: 2 connections, 1 in flight, oldest GET /slow from 10.0.0.7:4312 for 2s",
      'busy "job" for 61.5s',
      'busy "mail": 3 in flight, oldest for 400ms',
      'finalizer "flush" for 40ms'
    ])
  })

  it("writes a status as text, every listener included", () => {
    assert.deepStrictEqual(KmsReport.toText(status).split("\n"), [
      "Draining (SIGTERM), 21s left",
      "  api: draining, 2 connections, 1 in flight, 3 drained, 0 cut, 0 abandoned",
      "    GET /slow from 10.0.0.7:4312 for 2s",
      "  idle: open, 0 connections, 0 in flight",
      '  busy "job": 1 in flight, oldest for 61.5s',
      '  busy "mail": 3 in flight, oldest for 400ms',
      '  finalizer "flush": running for 40ms'
    ])
    const starting: Status = { phase: "Running", started: false, listeners: [], sections: [], finalizers: [] }
    assert.strictEqual(KmsReport.toText(starting), "Starting")
  })

  it("says how it ended, with everything that was cut or hung by name", () => {
    assert.deepStrictEqual(KmsReport.toText(report).split("\n"), [
      "Shutdown cut at its deadline after 27s (SIGTERM)",
      "  api: 3 drained, 1 cut, 1 abandoned, 20s",
      "    cut: GET /slow from 127.0.0.1:4312 after 26s",
      "  metrics: 0 drained, 0 cut, 0 abandoned, 0ms",
      '  busy "job": 0 drained, 1 cut, 0 abandoned, 25s',
      '  finalizer "cache": failed after 10ms: Error: gone',
      '  finalizer "flush": timed out after 2s',
      '  hung: finalizer "database" for 2s'
    ])
  })

  it("draws a table with a bar for the time in which each part drained", () => {
    assert.deepStrictEqual(KmsReport.toTable(clean, { columns: 80 }).split("\n"), [
      "Shutdown complete after 1.2s (SIGTERM)",
      "                       drained  cut   took  0                               1.2s",
      " draining                            900ms  ███████████████████████████",
      " unwinding                           300ms                             █████████",
      " http :3007                 12    0  850ms  ██████████████████████████",
      ' busy "report"               1    0  900ms  ███████████████████████████',
      ' finalizer "database"                200ms                                ██████',
      ""
    ])
  })

  it("keeps a table within its columns, whatever is in it", () => {
    const long = "a name that is far too long for any terminal ".repeat(5)
    const wild: Report = {
      ...report,
      listeners: [
        { ...report.listeners[0]!, name: `\u001B[2J${long}`, cutWork: Array.from({ length: 30 }, () => long) }
      ],
      finalizers: [{ ...report.finalizers[0]!, name: long, error: `${long}\n${long}` }],
      hung: [long]
    }
    for (const columns of [60, 80, 120, 200]) {
      const lines = KmsReport.toTable(wild, { columns }).split("\n")
      for (const line of lines) assert.isAtMost(line.length, Math.min(columns, 120), line)
      assert.notInclude(lines.join("\n"), "\u001B")
      assert.isBelow(lines.length, 40)
    }
    assert.include(KmsReport.toTable(report, { colors: true }), "\u001B[31m")
    assert.notInclude(KmsReport.toTable(clean, { colors: true }), "\u001B[31m")
  })

  it("encodes to JSON that its schema decodes to the same again, whatever the reason", () => {
    const reasons = [
      report.reason,
      Reason.Interrupted(),
      Reason.Requested({ message: undefined }),
      Reason.Requested({ message: "deploy" })
    ]
    for (const reason of reasons) {
      const json: unknown = JSON.parse(JSON.stringify(KmsReport.toJson({ ...report, reason })))
      const decoded = Schema.decodeUnknownSync(Schema.toCodecJson(KmsReport.Report))(json)
      assert.deepStrictEqual(JSON.parse(JSON.stringify(decoded)), JSON.parse(JSON.stringify({ ...report, reason })))
    }
    for (const value of [status, { ...status, reason: undefined, left: undefined }]) {
      const json: unknown = JSON.parse(JSON.stringify(KmsReport.toJson(value)))
      assert.deepStrictEqual(
        Schema.decodeUnknownSync(Schema.toCodecJson(KmsReport.Status))(json),
        JSON.parse(JSON.stringify(value))
      )
    }
  })

  it("encodes the errors that a reason carries", () => {
    const decode = (value: Report) =>
      Schema.decodeUnknownSync(Schema.toCodecJson(KmsReport.Report))(
        JSON.parse(JSON.stringify(KmsReport.toJson(value)))
      ).reason
    const uncaught = decode({ ...report, reason: Reason.Uncaught({ error: new TypeError("boom") }) })
    assert.deepInclude(uncaught, { _tag: "Uncaught" })
    assert.strictEqual((uncaught as { readonly error: Error }).error.message, "boom")
    const cause = Cause.combine(Cause.fail({ _tag: "Refused" }), Cause.die(new Error("port")))
    const failed = decode({ ...report, reason: Reason.Failed({ cause }) })
    assert.strictEqual(Cause.pretty((failed as { readonly cause: Cause.Cause<unknown> }).cause).includes("port"), true)
    // Anything may be thrown.
    for (const error of [undefined, Symbol("s"), 1n, () => 1, Exit.void]) {
      assert.deepInclude(decode({ ...report, reason: Reason.Uncaught({ error }) }), { _tag: "Uncaught" })
    }
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
