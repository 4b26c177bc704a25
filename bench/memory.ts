/**
 * Memory an idle connection, after garbage collection: what 10,000 keep-alive connections, each with one request that has been
 * answered, add to a server. And what is left of short connections that have come and gone.
 */
import { Console, Effect } from "effect"
import type { Kind, Usage } from "./kinds.ts"
import { crowd, head, inRounds, load, number, of, type Options, paired, row, serve, told, verdict } from "./run.ts"

const connections = 10_000
const target = 1.03
const control = "NodeHttpServer again"
const subjects = ["effect-kms", "NodeHttpServer", control, "node:http"]

const kindOf = (subject: string): Kind => (subject === control ? "NodeHttpServer" : (subject as Kind))

interface Memory {
  /** Bytes a connection. */
  readonly rss: number
  readonly heap: number
}

const per = (before: Usage, after: Usage, count: number): Memory => ({
  rss: (after.rss - before.rss) / count,
  heap: (after.heapUsed - before.heapUsed) / count
})

export const idleOnce = ({ home, kind }: { readonly kind: Kind; readonly home?: string | undefined }) =>
  Effect.gen(function* () {
    const { port, usage } = yield* serve({ kind, protocol: "http", keepAliveTimeout: 0, collect: true }, { home })
    // What is compiled and allocated once is not of the connections.
    yield* load({ port, connections: 16, requests: 2000 })
    const before = yield* usage
    yield* crowd({ port, what: "idle", count: connections })
    return per(before, yield* usage, connections)
  }).pipe(Effect.scoped)

/** Memory after each of `steps` times so many short connections. */
const shortOnce = (kind: Kind, connections: number, steps: number) =>
  Effect.gen(function* () {
    const { port, usage } = yield* serve({ kind, protocol: "http", collect: true })
    const seen: Array<Usage> = []
    for (let step = 0; step <= steps; step++) {
      // The first is to warm up, and is where the others are counted from.
      yield* load({ port, connections: 32, requests: step === 0 ? 20_000 : connections / steps, short: true })
      seen.push(yield* usage)
    }
    return seen
  }).pipe(Effect.scoped)

export const idle = Effect.fnUntraced(function* (options: Options) {
  const measured = yield* inRounds(options, subjects, (subject) => idleOnce({ kind: kindOf(subject) }))
  yield* Console.log(`\n## Memory an idle connection\n`)
  yield* head(["", "heap, bytes", "RSS, bytes", "heap over `NodeHttpServer`", "RSS over `NodeHttpServer`"])
  const heap = (a: Memory, b: Memory) => a.heap / b.heap
  const rss = (a: Memory, b: Memory) => a.rss / b.rss
  for (const subject of subjects) {
    const over = (compare: typeof heap) =>
      subject === "NodeHttpServer" ? "" : told(paired(measured, subject, "NodeHttpServer", compare), 3)
    yield* row([
      subject,
      told(
        of(measured, subject, ({ heap }) => heap),
        0
      ),
      told(
        of(measured, subject, ({ rss }) => rss),
        0
      ),
      over(heap),
      over(rss)
    ])
  }
  const heapRatio = paired(measured, "effect-kms", "NodeHttpServer", heap)
  const rssRatio = paired(measured, "effect-kms", "NodeHttpServer", rss)
  yield* Console.log(
    `\nTarget: at most ${target} over \`NodeHttpServer\`: heap ${verdict(heapRatio, target)}, RSS ${verdict(rssRatio, target)}.`
  )
})

export const growth = Effect.fnUntraced(function* (options: Options) {
  const connections = options.million ? 1_000_000 : 100_000
  const steps = 5
  yield* Console.log(`\n## Memory after ${number(connections, 0)} short connections\n`)
  const parts = Array.from({ length: steps }, (_, step) => number((connections * (step + 1)) / steps, 0))
  yield* head(["heap, KB (RSS, MB)", "before", ...parts, "bytes a connection, heap"])
  for (const subject of subjects) {
    const seen = yield* shortOnce(kindOf(subject), connections, steps)
    const grown = (seen.at(-1)!.heapUsed - seen[0]!.heapUsed) / connections
    const cells = seen.map(({ heapUsed, rss }) => `${number(heapUsed / 1024, 0)} (${number(rss / 1024 / 1024, 0)})`)
    yield* row([subject, ...cells, number(grown, 2)])
  }
})
