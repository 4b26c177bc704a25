/** What holds on past the deadline is named in the log, in real processes, a program for each kind of it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { beside, start } from "../support/program.ts"

const fixture = beside(import.meta.url, "./fixtures/hangs.ts")

const at = (name: string) => `, in ${name} at /\\S*/hangs\\.ts:\\d+:\\d+`
const peer = "127\\.0\\.0\\.1:\\d+"
const age = "for [\\d.]+m?s"

/** What the log says at the deadline, and what has still not ended when the process is given up. */
const kinds: Record<string, { readonly cut: ReadonlyArray<string>; readonly hung?: ReadonlyArray<string> }> = {
  request: { cut: [`api: GET /slow from ${peer} ${age}${at("runQuery")}`] },
  stubborn: {
    cut: [`api: GET /stubborn from ${peer} ${age}${at("runQuery")}`],
    hung: [`api: GET /stubborn from ${peer} ${age}${at("runQuery")}`]
  },
  upgrade: {
    cut: [`api: upgrade GET /socket from ${peer} ${age}${at("runQuery")}`, `busy "chat" ${age}${at("runQuery")}`]
  },
  socket: { cut: [`lines: connection from ${peer} ${age}${at("runQuery")}`] },
  adopted: { cut: [`tunnels: tunnel from ${peer} ${age}`] },
  busy: {
    cut: [`busy "report" ${age}${at("runQuery")}`],
    hung: [`busy "report" ${age}${at("runQuery")}`, `a finalizer of a layer without services ${age}`]
  },
  finalizer: {
    cut: [`finalizer "flush" ${age}${at("closePool")}`],
    hung: [`finalizer "flush" ${age}${at("closePool")}`]
  },
  layer: {
    cut: [`a finalizer of the layer of app/Database ${age}`],
    hung: [`a finalizer of the layer of app/Database ${age}`]
  },
  frame: {
    cut: [`a finalizer of a layer without services ${age}${at("closePool")}`],
    hung: [`a finalizer of a layer without services ${age}${at("closePool")}`]
  },
  span: {
    cut: [`a finalizer of a layer without services ${age}${at("cache\\.flush")}`],
    hung: [`a finalizer of a layer without services ${age}${at("cache\\.flush")}`]
  },
  parallel: {
    cut: [
      `finalizer "flush" ${age}${at("closePool")}`,
      `a finalizer of a layer without services ${age}${at("cache\\.flush")}`,
      `a finalizer of a layer without services ${age}${at("closePool")}`
    ],
    hung: [
      `finalizer "flush" ${age}${at("closePool")}`,
      `a finalizer of a layer without services ${age}${at("cache\\.flush")}`,
      `a finalizer of a layer without services ${age}${at("closePool")}`
    ]
  },
  startup: { cut: [`the program${at("runQuery")}`], hung: [`the program${at("runQuery")}`] }
}

describe.concurrent("past the deadline the log names", () => {
  for (const [kind, { cut, hung = [] }] of Object.entries(kinds)) {
    it.live(`what holds on: ${kind}`, () =>
      Effect.gen(function* () {
        const program = yield* start(fixture, { args: [kind] })
        const { code } = yield* program.ended
        const output = program.output()
        assert.match(output, new RegExp(`The deadline has come\\. Cut: ${cut.join("; ")}\n`))
        const named = hung.map((what) => `; hung: ${what}`).join("")
        assert.match(output, new RegExp(`Shutdown cut at its deadline .* abandoned${named} \\{`))
        assert.notInclude(output, "secret")
        assert.strictEqual(code, 1, output)
      }).pipe(Effect.scoped)
    )
  }
})
