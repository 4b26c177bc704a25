/**
 * What the parts of the library cost while a server runs: the same server without one of them, beside the whole of it. It
 * answers as before, and would not drain as it should.
 */
import { Console, Effect } from "effect"
import { execFileSync } from "node:child_process"
import { rmSync } from "node:fs"
import { type Change, change, copyOf } from "../scripts/copy.ts"
import { micros, type Server } from "./cpu.ts"
import { idleOnce } from "./memory.ts"
import { head, inRounds, type Measured, of, type Options, paired, row, told } from "./run.ts"

/** Something of the library, and the change that takes it away. */
interface Part extends Change {
  readonly name: string
}

const ofRequest: ReadonlyArray<Part> = [
  {
    name: "the record of the request",
    file: "internal/http.ts",
    from: "if (Exchange.of(response) !== undefined) return",
    to: "if (this.requests >= 0) return"
  },
  {
    name: "the clock, read at its begin and end",
    file: "internal/sweep.ts",
    from: "export const now = (): number => performance.now()",
    to: "export const now = (): number => 0"
  },
  {
    name: "telling event streams from other responses",
    file: "internal/serve.ts",
    from: "isEndless === undefined ? own : Effect.map(own, this.ended(isEndless))",
    to: "this.depth < 0 ? Effect.map(own, this.ended(isEndless!)) : own"
  },
  {
    name: "the frame that sees the fiber of its handler",
    file: "internal/serve.ts",
    from: "around(ending, this.counted)",
    to: "around(ending, (app) => (this.depth < 0 ? this.counted(app) : app))"
  }
]

const ofConnection: ReadonlyArray<Part> = [
  {
    name: "the listener for its end",
    file: "internal/connections.ts",
    from: 'this.all.add(connection)\n    socket.on("close", closed)',
    to: "this.all.add(connection)"
  },
  {
    name: "its place in the set of all",
    file: "internal/connections.ts",
    from: "this.all.add(connection)",
    to: "void this.all"
  },
  {
    name: "its record, with both",
    file: "internal/connections.ts",
    from: "(socket: Socket) => onOpen(this.add(socket))",
    to: "(socket: Socket) => void (this.accepted < 0 && onOpen(this.add(socket)))"
  }
]

const whole: Server = { name: "effect-kms", kind: "effect-kms" }
const effect: Server = { name: "NodeHttpServer", kind: "NodeHttpServer" }

const copied = ["src", "bench", "test/support", "scripts", "package.json", "tsconfig.json", "tsconfig.build.json"]

/** Builds the library without a part, as long as the scope is open. */
const without = (part: Part) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const home = copyOf("parts", copied)
      if (change(home, part) === undefined) throw new Error(`${part.file} does not have exactly once: ${part.from}`)
      execFileSync(process.execPath, ["scripts/build.ts"], { cwd: home, stdio: "inherit" })
      return { ...whole, name: part.name, home }
    }),
    ({ home }) => Effect.sync(() => rmSync(home, { recursive: true, force: true }))
  )

export const parts = Effect.fnUntraced(function* (options: Options) {
  yield* Console.log("\n## CPU time of the parts of a request\n")
  const requests = [whole, effect, ...(yield* Effect.forEach(ofRequest, without))]
  yield* table("µs", 2, requests, yield* micros(options, requests))

  yield* Console.log("\n## Memory of the parts of an idle connection\n")
  const connections = [whole, effect, ...(yield* Effect.forEach(ofConnection, without))]
  const byName = new Map(connections.map((server) => [server.name, server]))
  const heap = yield* inRounds(options, Array.from(byName.keys()), (name) =>
    Effect.map(idleOnce(byName.get(name)!), ({ heap }) => heap)
  )
  yield* table("bytes", 0, connections, heap)
}, Effect.scoped)

/** What each takes, and how much less than the whole. */
const table = Effect.fnUntraced(function* (
  unit: string,
  digits: number,
  servers: ReadonlyArray<Server>,
  measured: Measured<number>
) {
  yield* head(["without", unit, "less"])
  for (const { name } of servers) {
    const taken = of(measured, name, (value) => value)
    const less = paired(measured, whole.name, name, (all, rest) => all - rest)
    const cells =
      name === whole.name ? ["nothing", told(taken, digits), ""] : [name, told(taken, digits), told(less, digits)]
    yield* row(cells)
  }
})
