/**
 * Import and start-up: from nothing until a server listens, with the built library, by programs as a user has them (those in
 * `startup/`). CPU time is that of the whole process, wall time from its start as it knows it.
 */
import { Console, Effect } from "effect"
import { beside, start } from "../test/support/program.ts"
import { head, inRounds, of, type Options, paired, row, told, verdict } from "./run.ts"

const target = 1.05

/** Each with the program that it is compared with. */
const programs: ReadonlyArray<readonly [name: string, file: string, base: string | undefined]> = [
  ["effect-kms, by modules", "kms-modules.mjs", "NodeHttpServer, by modules"],
  ["NodeHttpServer, by modules", "effect-modules.mjs", undefined],
  ["NodeHttpServer, by modules, again", "effect-modules.mjs", "NodeHttpServer, by modules"],
  ["effect-kms, by its index", "kms-index.mjs", "NodeHttpServer, by modules"],
  ["effect-kms, all by their index", "kms-barrels.mjs", "NodeHttpServer, all by their index"],
  ["NodeHttpServer, all by their index", "effect-barrels.mjs", undefined],
  ["node:http", "node.mjs", undefined]
]

interface Started {
  readonly cpu: number
  readonly wall: number
  readonly rss: number
}

const once = (file: string) =>
  Effect.gen(function* () {
    const program = yield* start(beside(import.meta.url, `startup/${file}`), { env: { NODE_OPTIONS: "" } })
    const match = yield* program.printed(/^listens (.*)$/m)
    return JSON.parse(match[1]!) as Started
  }).pipe(Effect.scoped)

export const startup = Effect.fnUntraced(function* (options: Options) {
  const names = programs.map(([name]) => name)
  const measured = yield* inRounds(options, names, (name) => once(programs.find(([other]) => other === name)![1]))
  const cpu = (a: Started, b: Started) => a.cpu / b.cpu
  const wall = (a: Started, b: Started) => a.wall / b.wall
  yield* Console.log(`\n## Import and start-up\n`)
  yield* head(["", "CPU, ms", "wall, ms", "RSS, MB", "CPU over the same without", "wall over the same without"])
  for (const [name, , base] of programs) {
    const over = (compare: typeof cpu) => (base === undefined ? "" : told(paired(measured, name, base, compare), 3))
    yield* row([
      name,
      told(
        of(measured, name, ({ cpu }) => cpu),
        0
      ),
      told(
        of(measured, name, ({ wall }) => wall),
        0
      ),
      told(
        of(measured, name, ({ rss }) => rss / 1024 / 1024),
        0
      ),
      over(cpu),
      over(wall)
    ])
  }
  for (const [name, , base] of programs.filter(([name]) => name.startsWith("effect-kms"))) {
    yield* Console.log(`\nTarget: at most ${target}: ${name}: ${verdict(paired(measured, name, base!, cpu), target)}.`)
  }
})
