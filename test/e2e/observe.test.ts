/** What an operator gets of a real process: its trace in a collector, its metrics, its view on a terminal, its log in a pipe. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { KmsReport } from "effect-kms"
import { createServer, get } from "node:http"
import type { AddressInfo } from "node:net"
import { beside, start } from "../support/program.ts"

const example = beside(import.meta.url, "../../examples/12-metrics-and-spans/main.ts")
const hangs = beside(import.meta.url, "./fixtures/hangs.ts")
const startProgram = beside(import.meta.url, "../../examples/start/main.ts")

interface Span {
  readonly name: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly endTimeUnixNano: string
}

/** Something that collects OTLP, and the spans that it has been sent. */
const collector = Effect.acquireRelease(
  Effect.callback<{ readonly spans: ReadonlyArray<Span>; readonly url: string; readonly close: () => void }>(
    (resume) => {
      const spans: Array<Span> = []
      const server = createServer((request, response) => {
        let body = ""
        request.setEncoding("utf8").on("data", (chunk: string) => (body += chunk))
        request.on("end", () => {
          const { resourceSpans } = JSON.parse(body) as {
            resourceSpans: Array<{ scopeSpans: Array<{ spans: Array<Span> }> }>
          }
          spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans)))
          response.end("{}")
        })
      })
      server.listen(0, () => {
        const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
        resume(Effect.succeed({ spans, url, close: () => void server.close() }))
      })
    }
  ),
  ({ close }) => Effect.sync(close)
)

/** What is sent to a terminal before a line is written anew. */
const erase = "\r\u001B[K"

const fetchText = (url: string) =>
  Effect.callback<string, Error>((resume) => {
    get(url, (response) => {
      let body = ""
      response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk))
      response.on("end", () => resume(Effect.succeed(body)))
    }).on("error", (error) => resume(Effect.fail(error)))
  })

describe("an operator", () => {
  it.live("has the whole trace in a collector before the process ends, and metrics while it drains", () =>
    Effect.gen(function* () {
      const { spans, url } = yield* collector
      const program = yield* start(example, {
        env: {
          PORT: "0",
          METRICS_PORT: "0",
          OTEL_TRACES_EXPORTER: "otlp",
          OTEL_EXPORTER_OTLP_ENDPOINT: url,
          // Nothing is exported by the clock: what comes has been sent at the end.
          OTEL_BSP_SCHEDULE_DELAY: "600000"
        }
      })
      const listening = yield* program.printed(/Listening on http:\/\/\S+:(\d+)\n[^]*Listening on http:\/\/\S+:(\d+)\n/)
      const [, operations, api] = listening
      const answer = yield* Effect.forkChild(fetchText(`http://127.0.0.1:${api}/slow`), { startImmediately: true })
      const metric = (name: string) => new RegExp(`^kms_${name} (\\d+)$`, "m")
      const read = Effect.map(
        fetchText(`http://127.0.0.1:${operations}/metrics`),
        (text) => (name: string) => Number(metric(name).exec(text)?.[1])
      )
      const api1 = '\\{listener="api",kind="http",address=":\\d+"\\}'
      let scraped = yield* read
      while (scraped(`in_flight${api1}`) !== 1) scraped = yield* read
      yield* program.kill("SIGTERM")
      while (scraped('phase\\{phase="Draining"\\}') !== 1) scraped = yield* read
      assert.strictEqual(scraped(`in_flight${api1}`), 1)
      while (scraped('phase\\{phase="Unwinding"\\}') !== 1) scraped = yield* read
      assert.strictEqual(scraped(`drained_total${api1}`), 1)
      assert.strictEqual(scraped(`in_flight${api1}`), 0)
      assert.strictEqual(yield* Fiber.join(answer), "done\n")

      assert.strictEqual((yield* program.ended).code, 0)
      const own = spans.filter(({ name }) => name.startsWith("kms."))
      assert.deepStrictEqual(own.map(({ name }) => name).sort(), [
        "kms.drain",
        "kms.drain",
        "kms.finalizer",
        "kms.shutdown"
      ])
      const shutdown = own.find(({ name }) => name === "kms.shutdown")!
      for (const span of own) {
        assert.notStrictEqual(span.endTimeUnixNano, "0")
        if (span !== shutdown) assert.strictEqual(span.parentSpanId, shutdown.spanId)
      }
      assert.isTrue(
        spans.some(({ name }) => name.startsWith("GET")),
        "the request's own span is there, too"
      )
    }).pipe(Effect.scoped)
  )

  it.live("reads one entry with the whole report in a pipe", () =>
    Effect.gen(function* () {
      const program = yield* start(hangs, { args: ["finalizer"] })
      yield* program.ended
      const entries = program
        .output()
        .split("\n")
        .filter((line) => line.includes("Shutdown cut"))
      assert.strictEqual(entries.length, 1)
      const json: unknown = JSON.parse(entries[0]!.slice(entries[0]!.indexOf(" {") + 1))
      const report = yield* Schema.decodeUnknownEffect(Schema.toCodecJson(KmsReport.Report))(json)
      assert.isTrue(report.forced)
      assert.match(report.hung[0]!, /^finalizer "flush" for [\d.]+m?s, in closePool at /)
      assert.notInclude(program.output(), "\u001B")
    }).pipe(Effect.scoped)
  )

  for (const columns of [80, 200]) {
    it.live(`sees a line that is kept up to date, and a table, on a terminal of ${columns} columns`, () =>
      Effect.gen(function* () {
        // `script` is a terminal to what it runs, and writes down all that it is sent.
        const shell = `stty cols ${columns}; exec ${process.execPath} ${hangs} request`
        const program = yield* start("-qec", {
          command: ["script"],
          args: [shell, "/dev/null"],
          env: { TERM: "xterm", NO_COLOR: "1" }
        })
        yield* program.ended
        const output = program.output()
        const lives = output.split(erase).filter((line) => line.startsWith("SIGTERM: "))
        assert.isAtLeast(lives.length, 2, output)
        assert.match(lives[0]!, /^SIGTERM: draining, [\d.]+m?s left \| api 1 \(GET \/slow [\d.]+m?s\)$/)
        const table = output.slice(output.indexOf("Shutdown cut at its deadline")).split("\r\n")
        assert.match(table[1]!, /^ +drained +cut +took +0 +[\d.]+m?s$/)
        assert.strictEqual(table[1]!.length, Math.min(columns, 120))
        assert.match(
          table.find((line) => line.startsWith(" api "))!,
          /^ api +0 +1 +[\d.]+m?s +█+$/
        )
        assert.match(output, / {3}cut: GET \/slow from 127\.0\.0\.1:\d+ after [\d.]+m?s/)
        // It is the table that tells, and not a log entry as well.
        assert.notInclude(output, '"reason"')
      }).pipe(Effect.scoped)
    )
  }

  it.live("sees the view of the server in `npm start` on a terminal", () =>
    Effect.gen(function* () {
      const onTerminal = yield* start("-qec", {
        command: ["script"],
        args: [`stty cols 80; exec ${process.execPath} ${startProgram}`, "/dev/null"],
        env: { TERM: "xterm", NO_COLOR: "1" }
      })
      yield* onTerminal.ended
      assert.include(onTerminal.output(), `${erase}SIGTERM: draining, `)
      assert.match(onTerminal.output(), /drained +cut +took +0 +[\d.]+s\r\n draining +[\d.]+s +█/)
      assert.match(onTerminal.output(), /Nothing was lost\./)
      assert.notInclude(onTerminal.output(), '"reason"')
    }).pipe(Effect.scoped)
  )
})
