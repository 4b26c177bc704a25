import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, References, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Kms, KmsReport, KmsTest } from "effect-kms"
import { inspect } from "node:util"
import { Process } from "../src/internal/process.ts"
import * as Terminal from "../src/internal/terminal.ts"
import * as Host from "./support/host.ts"

/** A screen that understands what a terminal is sent here: text, line ends, and the two orders in front of a live line. */
const screen = (options: { readonly columns?: number; readonly logs?: boolean } = {}) => {
  const lines = [""]
  let column = 0
  const take = (text: string) => {
    // oxlint-disable-next-line no-control-regex -- those are the orders
    for (const [part] of text.matchAll(/\r|\n|\u001B\[K|\u001B\[\d+m|[^\r\n\u001B]+/g)) {
      const line = lines.at(-1)!
      if (part === "\n") lines.push("")
      else if (part === "\u001B[K") lines[lines.length - 1] = line.slice(0, column)
      else if (!part.startsWith("\u001B") && part !== "\r") {
        lines[lines.length - 1] = line.slice(0, column).padEnd(column) + part + line.slice(column + part.length)
      }
      if (part === "\n" || part === "\r") column = 0
      else if (!part.startsWith("\u001B")) column += part.length
    }
    return true
  }
  const errors = new Set<() => void>()
  const exits = new Set<() => void>()
  const stream = (isTTY: boolean) => ({
    isTTY,
    columns: options.columns ?? 80,
    write: (chunk: string | Uint8Array) => take(typeof chunk === "string" ? chunk : Buffer.from(chunk).toString()),
    on: (_: "error", listener: () => void) => errors.add(listener)
  })
  const stderr = stream(true)
  const stdout = stream(options.logs ?? true)
  const terminal = Terminal.of({
    stdout,
    stderr,
    env: {},
    once: (_, listener) => exits.add(listener),
    off: (_, listener) => exits.delete(listener)
  })
  return { lines, terminal, stdout, stderr, errors, exits, originals: [stdout.write, stderr.write] as const }
}

describe("a terminal", () => {
  it("keeps one line at the bottom, and whatever else is written above it", () => {
    const { lines, originals, stderr, stdout, terminal } = screen()
    stdout.write("before\n")
    terminal.show("1 open, and a lot more to say")
    assert.deepStrictEqual(lines, ["before", "1 open, and a lot more to say"])
    stdout.write("a log line\n")
    stderr.write("an error\n")
    assert.deepStrictEqual(lines, ["before", "a log line", "an error", "1 open, and a lot more to say"])
    terminal.show("none")
    assert.deepStrictEqual(lines, ["before", "a log line", "an error", "none"])
    stdout.write("in two ")
    stdout.write("parts\n")
    terminal.write("the table\n")
    stdout.write("after\n")
    assert.deepStrictEqual(lines.slice(-3), ["the table", "after", ""])
    assert.notInclude(lines.join("\n"), "none")
    assert.deepStrictEqual([stdout.write, stderr.write], [...originals])
  })

  it("leaves a write alone that somebody else has replaced meanwhile", () => {
    const { stdout, terminal } = screen()
    terminal.show("1 open")
    const other = () => true
    stdout.write = other
    terminal.clear()
    assert.strictEqual(stdout.write, other)
  })

  it("leaves alone what somebody else has not come to the end of", () => {
    const { lines, stderr, stdout, terminal } = screen()
    terminal.show("1 open")
    stdout.write("progress: 1")
    terminal.show("2 open")
    stdout.write("")
    stdout.write(Buffer.from(" 2"))
    assert.deepStrictEqual(lines, ["progress: 1 2"])
    stderr.write(Buffer.from(" 3\n"))
    assert.deepStrictEqual(lines, ["progress: 1 2 3", "2 open"])
    stdout.write("progress: 4")
    terminal.write("the table\n")
    assert.deepStrictEqual(lines, ["progress: 1 2 3", "progress: 4", "the table", ""])
  })

  it("leaves no line behind when the process ends", () => {
    const { exits, lines, terminal } = screen()
    terminal.show("1 open")
    for (const exit of Array.from(exits)) exit()
    assert.deepStrictEqual(lines, [""])
    terminal.show("1 open")
    terminal.clear()
    assert.strictEqual(exits.size, 0)
  })

  it("is written to no more once it has gone", () => {
    const { errors, lines, originals, stderr, stdout, terminal } = screen()
    terminal.show("1 open")
    assert.isAtLeast(errors.size, 1, "an error that nobody listens for is an uncaught one")
    for (const error of errors) error()
    terminal.show("2 open")
    terminal.write("the table\n")
    assert.deepStrictEqual(lines, ["1 open"])
    terminal.clear()
    assert.deepStrictEqual([stdout.write, stderr.write], [...originals])
  })

  it("passes on what comes through somebody else's replacement", () => {
    const { lines, stdout, terminal } = screen()
    terminal.show("1 open")
    const { write } = stdout
    stdout.write = (text) => write(`> ${String(text)}`)
    terminal.write("the table\n")
    stdout.write("later\n")
    assert.deepStrictEqual(lines, ["the table", "> later", ""])
  })

  it("has no colors where NO_COLOR says so", () => {
    const stream = { isTTY: true, columns: 0, write: () => true, on: () => {} }
    const nobody = { once: () => {}, off: () => {} }
    const of = (env: NodeJS.ProcessEnv) => Terminal.of({ stdout: stream, stderr: stream, env, ...nobody })
    assert.deepStrictEqual(
      [of({}), of({ NO_COLOR: "" }), of({ NO_COLOR: "1" })].map(({ colors }) => colors),
      [true, true, false]
    )
    assert.strictEqual(of({}).columns(), 80, "some say that they have none")
  })
})

/** A job of ten seconds, told to end after two. */
const app = Layer.effectDiscard(
  Effect.gen(function* () {
    yield* Kms.addFinalizer("database", () => Effect.sleep("1 second"))
    yield* Effect.sleep("10 seconds").pipe(Kms.busy("report"), Effect.forkScoped)
  })
)

const shutdown = Effect.gen(function* () {
  yield* KmsTest.launch(app)
  yield* TestClock.adjust("2 seconds")
  yield* KmsTest.signal("SIGTERM")
  yield* KmsTest.reached("Draining")
})

/** The same in front of a terminal. Gives its fiber. */
const watched = Effect.fnUntraced(function* (terminal: Terminal.Terminal) {
  const host = Host.make()
  const fiber = yield* app.pipe(
    Kms.launch(),
    Effect.provideService(Process, { ...host.process, terminal }),
    Effect.forkDetach
  )
  yield* TestClock.adjust("2 seconds")
  host.signal("SIGTERM")
  yield* TestClock.adjust(0)
  return fiber
})

/** What the loggers of a program are given, as text, as JSON, and as a console prints it. */
const logged = () => {
  const entries: Array<{ readonly text: string; readonly json: unknown; readonly printed: string }> = []
  const logger = Logger.make<unknown, void>((options) => {
    const [text, ...data] = Array.isArray(options.message) ? (options.message as Array<unknown>) : [options.message]
    const json: unknown = JSON.parse(JSON.stringify(Logger.formatStructured.log(options).message))
    entries.push({ text: String(text), json, printed: data.map((value) => inspect(value)).join(" ") })
  })
  return { entries, layer: Logger.layer([logger]) }
}

describe("whoever reads the logs", () => {
  it.effect("is told every three seconds what is still open, and at the end everything in one entry", () => {
    const { entries, layer } = logged()
    return Effect.gen(function* () {
      yield* shutdown
      yield* TestClock.adjust("7 seconds")
      assert.deepStrictEqual(
        entries.map(({ text }) => text),
        [
          'Shutting down (SIGTERM). At most 25s. Open: busy "report" for 2s',
          'Still waiting for busy "report" for 5s (22s left)',
          'Still waiting for busy "report" for 8s (19s left)'
        ]
      )
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* KmsTest.exitCode, 0)
      const last = entries.at(-1)!
      assert.strictEqual(last.text, "Shutdown complete after 9s (SIGTERM): 1 drained, 0 cut, 0 abandoned")
      assert.strictEqual(entries.filter(({ text }) => text.startsWith("Shutdown")).length, 1)
      const [, data] = last.json as [string, unknown]
      const report = yield* Schema.decodeUnknownEffect(Schema.toCodecJson(KmsReport.Report))(data)
      assert.deepStrictEqual(report.sections, [{ name: "report", drained: 1, cut: 0, abandoned: 0, from: 0, to: 8000 }])
      assert.deepStrictEqual(report.finalizers, [{ name: "database", outcome: "released", from: 8000, to: 9000 }])
      assert.deepStrictEqual(report.phases, [
        { phase: "Draining", from: 0, to: 8000 },
        { phase: "Unwinding", from: 8000, to: 9000 }
      ])
      assert.deepStrictEqual(JSON.parse(last.printed), data, "one line of JSON where it is printed")
    }).pipe(Effect.provide([KmsTest.layer, layer]))
  })

  it.effect("is told what is released, once nothing else is open", () => {
    const { entries, layer } = logged()
    return Effect.gen(function* () {
      yield* KmsTest.launch(Layer.effectDiscard(Effect.addFinalizer(() => Effect.sleep("4 seconds"))))
      yield* KmsTest.signal("SIGTERM")
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* KmsTest.exitCode, 0)
      const waits = entries.map(({ text }) => text).filter((text) => text.startsWith("Still"))
      assert.deepStrictEqual(waits, ["Still waiting for a finalizer of a layer without services for 3s (22s left)"])
    }).pipe(Effect.provide([KmsTest.layer, layer]))
  })
})

describe("whoever watches a terminal", () => {
  it.effect("sees one line that is kept up to date, and then a table", () =>
    Effect.gen(function* () {
      const { lines, terminal } = screen()
      const fiber = yield* watched(terminal)
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(lines, ['SIGTERM: draining, 22s left | busy "report" 1 (5s)'])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(lines, ['SIGTERM: unwinding, 17s left | finalizer "database" (0ms)'])
      yield* TestClock.adjust("1 second")
      yield* Fiber.await(fiber)
      assert.strictEqual(lines[0], "Shutdown complete after 9s (SIGTERM)")
      assert.include(lines.join("\n"), ' busy "report"               1    0    8s  ████')
    }).pipe(Effect.provide(logged().layer))
  )

  for (const logs of [true, false]) {
    it.effect(
      logs ? "does not find the report in the log there once more" : "finds the report in a log elsewhere, too",
      () => {
        const { entries, layer } = logged()
        return Effect.gen(function* () {
          const fiber = yield* watched(screen({ logs }).terminal)
          yield* TestClock.adjust("20 seconds")
          yield* Fiber.await(fiber)
          const reports = entries.filter(({ text }) => text.startsWith("Shutdown complete"))
          assert.strictEqual(reports.length, logs ? 0 : 1)
          assert.strictEqual(
            entries.some(({ text }) => text.startsWith("Still waiting")),
            !logs
          )
        }).pipe(Effect.provide(layer))
      }
    )
  }

  it.effect("sees nothing of a program that is not to log", () =>
    Effect.gen(function* () {
      const { lines, terminal } = screen()
      const fiber = yield* watched(terminal)
      yield* TestClock.adjust("20 seconds")
      yield* Fiber.await(fiber)
      assert.deepStrictEqual(lines, [""])
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
})
