/**
 * All benchmarks, or those that are named, one after the other. Prints Markdown.
 *
 * `npm run bench -- cpu memory growth startup exit scale lost far parts --rounds 30 --seed 1 --million`
 *
 * `--case "1,000 requests"` takes of `exit` and `scale` only what is called so, or else has this in its name, and may be given
 * again.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect } from "effect"
import { cpus, loadavg } from "node:os"
import { parseArgs } from "node:util"
import { cpu } from "./cpu.ts"
import * as Exit from "./exit.ts"
import { far, lost } from "./lost.ts"
import * as Memory from "./memory.ts"
import { parts } from "./parts.ts"
import type { Options } from "./run.ts"
import { startup } from "./startup.ts"

const sections: Record<string, (options: Options) => Effect.Effect<void>> = {
  startup,
  cpu,
  memory: Memory.idle,
  growth: Memory.growth,
  exit: Exit.exit,
  scale: Exit.scale,
  lost,
  far,
  parts
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "30" },
    seed: { type: "string", default: `${Math.floor(Math.random() * 2 ** 31)}` },
    million: { type: "boolean", default: false },
    case: { type: "string", multiple: true, default: [] }
  }
})

const options: Options = {
  rounds: Number(values.rounds),
  seed: Number(values.seed),
  million: values.million,
  cases: values.case
}
if (!(options.rounds >= 1 && Number.isInteger(options.rounds) && Number.isInteger(options.seed))) {
  throw new Error("--rounds and --seed are whole numbers")
}
const unknown = positionals.filter((name) => sections[name] === undefined)
if (unknown.length > 0) throw new Error(`There is no ${unknown.join(", ")}: ${Object.keys(sections).join(", ")}`)
for (const part of options.cases) {
  if (!Exit.names.some((name) => name.includes(part))) throw new Error(`No case has ${part}: ${Exit.names.join("; ")}`)
}
const names = positionals.length === 0 ? Object.keys(sections) : positionals

const program = Effect.gen(function* () {
  const [{ model } = { model: "an unknown CPU" }] = cpus()
  const { rounds, seed } = options
  yield* Console.log(`${cpus().length} × ${model}, Node ${process.version}, ${rounds} rounds, --seed ${seed}`)
  const [busy = 0] = loadavg()
  if (busy > cpus().length / 2) {
    yield* Console.log(`\nThe machine was busy when this began (load ${busy.toFixed(1)}): times are of little worth.`)
  }
  for (const name of names) yield* sections[name]!(options)
})

NodeRuntime.runMain(program)
