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
import { head, loader, type Measured, of, type Options, paired, row, serve, told, verdict } from "./run.ts"
import { Random } from "./stats.ts"

const connections = 16
/** Requests of one turn. */
const slice = 3000
/** The first of them are slow, and are not counted. */
const warmUp = 7
/** Together more than a second of CPU time for each of Effect's. */
const slices = 20

/** One that takes part; `home` is the copy of the project that has it. */
export interface Server {
  readonly name: string
  readonly kind: Kind
  readonly home?: string | undefined
}

const servers: ReadonlyArray<Server> = [
  { name: "effect-kms", kind: "effect-kms" },
  { name: "NodeHttpServer", kind: "NodeHttpServer" },
  { name: "NodeHttpServer again", kind: "NodeHttpServer" },
  { name: "node:http", kind: "node:http" }
]
const target = 1.02

const prepare = Effect.fnUntraced(function* ({ home, kind, name }: Server) {
  const { port, usage } = yield* serve({ kind, protocol: "http", keepAliveTimeout: 0 }, { home })
  const { more } = yield* loader({ port, connections, requests: slice })
  for (let run = 1; run < warmUp; run++) yield* more
  const turn = Effect.gen(function* () {
    const before = yield* usage
    yield* more
    return (yield* usage).cpu - before.cpu
  })
  return { name, turn }
})

/** Microseconds a request, by name. */
const round = Effect.fnUntraced(function* (random: Random, servers: ReadonlyArray<Server>) {
  const prepared = yield* Effect.forEach(random.shuffle(servers), prepare)
  const spent = new Map<string, number>()
  for (let turn = 0; turn < slices; turn++) {
    for (const { name, turn } of random.shuffle(prepared)) {
      spent.set(name, (spent.get(name) ?? 0) + ((yield* turn) * 1000) / (slices * slice))
    }
  }
  return spent
}, Effect.scoped)

/** Microseconds a request, by name, in the order of the rounds. */
export const micros = Effect.fnUntraced(function* (options: Options, servers: ReadonlyArray<Server>) {
  const random = new Random(options.seed)
  const measured = new Map<string, Array<number>>(servers.map(({ name }) => [name, []]))
  for (let done = 0; done < options.rounds; done++) {
    for (const [name, spent] of yield* round(random, servers)) measured.get(name)!.push(spent)
  }
  return measured as Measured<number>
})

export const cpu = Effect.fnUntraced(function* (options: Options) {
  const measured = yield* micros(options, servers)
  const ratio = (a: number, b: number) => a / b
  yield* Console.log(`\n## CPU time a request\n`)
  yield* head(["", "µs a request", "over `NodeHttpServer`", "over `node:http`"])
  for (const { name } of servers) {
    const over = (base: string) => (name === base ? "" : told(paired(measured, name, base, ratio), 3))
    const spent = of(measured, name, (micros) => micros)
    yield* row([name, told(spent, 1), over("NodeHttpServer"), over("node:http")])
  }
  const result = paired(measured, "effect-kms", "NodeHttpServer", ratio)
  yield* Console.log(`\nTarget: at most ${target} over \`NodeHttpServer\`: ${verdict(result, target)}.`)
})
