/**
 * Requests lost at the stop of one server: written on an open keep-alive connection, and never answered. Server and
 * clients are processes of their own; how the clients count is in `test/support/hammer.ts`.
 *
 * `npm run bench:lost` takes about ten minutes. `npm run bench:lost -- 3` does three runs of each instead of 20.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect } from "effect"
import type { Hammered } from "../test/support/hammered.ts"
import { type Load, stop, type Stop } from "../test/support/lost.ts"

const runs = Number(process.argv[2] ?? 20)
/** Those that lose do not need as many. */
const contrastRuns = Math.min(runs, 5)

interface Case {
  readonly name: string
  readonly load: Omit<Load, "kind">
  /** Which servers. */
  readonly kinds: ReadonlyArray<Hammered["kind"]>
  /** Whether losing something is a failure; without a lame duck, what has been idle for longer may be lost. */
  readonly mustLoseNothing: boolean
}

const all = ["effect-kms", "NodeHttpServer", "node:http"] as const
const busy = { connections: 60, think: [0, 0] } as const
const thinking = { connections: 100, think: [0, 100] } as const
const remote = { protocol: "http", connections: 100, think: [500, 4000], delay: 40 } as const

const cases: ReadonlyArray<Case> = [
  { name: "60 without pause, HTTP", load: { protocol: "http", ...busy }, kinds: all, mustLoseNothing: true },
  { name: "60 without pause, HTTPS", load: { protocol: "https", ...busy }, kinds: all, mustLoseNothing: true },
  {
    name: "60 without pause, HTTP/2 over TLS",
    load: { protocol: "http2", ...busy },
    kinds: all,
    mustLoseNothing: true
  },
  {
    name: "100 with 0 to 100 ms of thought, HTTP",
    load: { protocol: "http", ...thinking },
    kinds: all,
    mustLoseNothing: true
  },
  {
    name: "100 with 0 to 100 ms of thought, HTTPS",
    load: { protocol: "https", ...thinking },
    kinds: all,
    mustLoseNothing: true
  },
  {
    name: "100 with 0.5 to 4 s of thought, 40 ms away, lame duck of 5 s",
    load: { ...remote, lameDuck: 5000 },
    kinds: ["effect-kms"],
    mustLoseNothing: true
  },
  {
    name: "the same without a lame duck",
    load: remote,
    kinds: all,
    mustLoseNothing: false
  }
]

let failed = false

const measure = Effect.fnUntraced(function* ({ load, mustLoseNothing }: Case, kind: Hammered["kind"]) {
  const count = kind === "effect-kms" ? runs : contrastRuns
  const stops = yield* Effect.forEach(
    Array.from({ length: count }),
    // Not always at the same moment; those who mostly think do not disturb each other.
    () => Effect.suspend(() => stop({ ...load, kind }, Math.random() * 200)),
    { concurrency: load.think[1] > 1000 ? 5 : 1 }
  )
  const lost = stops.map(({ counted }) => counted.lost)
  const total = lost.reduce((sum, n) => sum + n, 0)
  if (kind === "effect-kms") {
    for (const bad of stops.filter((stop) => isBad(stop, mustLoseNothing))) {
      failed = true
      yield* Console.error(JSON.stringify(bad, null, 2))
    }
  }
  return count > 5 && total === 0 ? `**0** in ${count} runs` : lost.join(" ")
})

const isBad = ({ counted, server }: Stop, mustLoseNothing: boolean): boolean =>
  (mustLoseNothing && counted.lost > 0) || counted.wrong > 0 || counted.stopped > 0 || server?.code !== 0

const program = Effect.gen(function* () {
  yield* Console.log(`| requests lost, run by run | ${all.join(" | ")} |\n|---|---|---|---|`)
  for (const each of cases) {
    const cells: Array<string> = []
    for (const kind of all) cells.push(each.kinds.includes(kind) ? yield* measure(each, kind) : "")
    yield* Console.log(`| ${each.name} | ${cells.join(" | ")} |`)
  }
  process.exitCode = failed ? 1 : 0
})

NodeRuntime.runMain(program)
