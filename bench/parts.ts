/**
 * What the parts of the library cost while a server runs: the same server without one of them, beside the whole of it. It
 * answers as before, and would not drain as it should.
 */
import { Console, Effect } from "effect"
import { execFileSync } from "node:child_process"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { copyOf } from "../scripts/copy.ts"
import { micros, type Server } from "./cpu.ts"
import { idleOnce } from "./memory.ts"
import { head, inRounds, of, type Options, paired, row, told } from "./run.ts"

interface Part {
  readonly name: string
  readonly file: string
  /** This text, which is in the file exactly once, becomes the other. */
  readonly from: string
  readonly to: string
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
const without = ({ file, from, name, to }: Part) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const home = copyOf("parts", copied)
      const path = join(home, "src", file)
      const source = readFileSync(path, "utf8")
      if (source.split(from).length !== 2) throw new Error(`${file} does not have this exactly once:\n${from}`)
      writeFileSync(
        path,
        source.replace(from, () => to)
      )
      execFileSync(process.execPath, ["scripts/build.ts"], { cwd: home, stdio: "inherit" })
      return { ...whole, name, home }
    }),
    ({ home }) => Effect.sync(() => rmSync(home, { recursive: true, force: true }))
  )

export const parts = Effect.fnUntraced(function* (options: Options) {
  yield* Console.log("\n## CPU time of the parts of a request\n")
  yield* head(["without", "µs a request less"])
  const requests = [whole, effect, ...(yield* Effect.forEach(ofRequest, without))]
  const spent = yield* micros(options, requests)
  for (const { name } of requests.slice(1)) {
    yield* row([
      name,
      told(
        paired(spent, whole.name, name, (whole, part) => whole - part),
        2
      )
    ])
  }
  yield* Console.log("\n## Memory of the parts of an idle connection\n")
  yield* head(["without", "heap, bytes", "less"])
  const connections = [whole, effect, ...(yield* Effect.forEach(ofConnection, without))]
  const byName = new Map(connections.map((server) => [server.name, server]))
  const kept = yield* inRounds(options, Array.from(byName.keys()), (name) => idleOnce(byName.get(name)!))
  for (const { name } of connections) {
    yield* row([
      name === whole.name ? "nothing" : name,
      told(
        of(kept, name, ({ heap }) => heap),
        0
      ),
      name === whole.name
        ? ""
        : told(
            paired(kept, whole.name, name, (whole, part) => whole.heap - part.heap),
            0
          )
    ])
  }
}, Effect.scoped)
