/**
 * CPU time a request: what all threads of a server have used, user and system, while a process of clients had so many tiny
 * answers over keep-alive connections.
 *
 * In a round all servers are there at once, each a new process, and are loaded in turns, a slice of requests each, so that
 * what disturbs the machine for seconds disturbs all of them. `NodeHttpServer` takes part twice, since no two processes of
 * the same program are equally fast: that shows how much of a difference is none.
 */
import { Console, Effect } from "effect"
import type { Kind } from "./kinds.ts"
import { head, loader, of, type Options, paired, row, serve, told, verdict } from "./run.ts"
import { Random } from "./stats.ts"

const connections = 16
/** Requests of one turn. */
const slice = 3000
/** The first of them are slow, and are not counted. */
const warmUp = 7
/** Together more than a second of CPU time for each of Effect's. */
const slices = 20

const control = "NodeHttpServer again"
const subjects = ["effect-kms", "NodeHttpServer", control, "node:http"]
const target = 1.02

const prepare = Effect.fnUntraced(function* (subject: string) {
  const kind = subject === control ? "NodeHttpServer" : (subject as Kind)
  const { port, usage } = yield* serve({ kind, protocol: "http", keepAliveTimeout: 0 })
  const { more } = yield* loader({ port, connections, requests: slice })
  for (let run = 1; run < warmUp; run++) yield* more
  const turn = Effect.gen(function* () {
    const before = yield* usage
    yield* more
    return (yield* usage).cpu - before.cpu
  })
  return { subject, turn }
})

/** Microseconds a request, by subject. */
const round = Effect.fnUntraced(function* (random: Random) {
  const prepared = yield* Effect.forEach(random.shuffle(subjects), prepare)
  const spent = new Map<string, number>()
  for (let turn = 0; turn < slices; turn++) {
    for (const { subject, turn } of random.shuffle(prepared)) {
      spent.set(subject, (spent.get(subject) ?? 0) + ((yield* turn) * 1000) / (slices * slice))
    }
  }
  return spent
}, Effect.scoped)

export const cpu = Effect.fnUntraced(function* (options: Options) {
  const random = new Random(options.seed)
  const measured = new Map<string, Array<number>>(subjects.map((subject) => [subject, []]))
  for (let done = 0; done < options.rounds; done++) {
    for (const [subject, micros] of yield* round(random)) measured.get(subject)!.push(micros)
  }
  const ratio = (a: number, b: number) => a / b
  yield* Console.log(`\n## CPU time a request\n`)
  yield* head(["", "µs a request", "over `NodeHttpServer`", "over `node:http`"])
  for (const subject of subjects) {
    const over = (base: string) => (subject === base ? "" : told(paired(measured, subject, base, ratio), 3))
    const micros = of(measured, subject, (micros) => micros)
    yield* row([subject, told(micros, 1), over("NodeHttpServer"), over("node:http")])
  }
  const result = paired(measured, "effect-kms", "NodeHttpServer", ratio)
  yield* Console.log(`\nTarget: at most ${target} over \`NodeHttpServer\`: ${verdict(result, target)}.`)
})
