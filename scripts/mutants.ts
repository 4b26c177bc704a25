/**
 * Takes away what keeps each invariant of DESIGN.md, and other promises, one after the other, and sees that the test of it
 * fails. A mutant that survives is a promise that no test holds up; it fails this program.
 *
 *     npm run mutants [part of a test or title]
 *     npm run mutants -- --tested
 *
 * Each test has to pass as it is, too; with `--tested` it does so elsewhere in the same run, and is not asked again.
 *
 * Works on copies of the project, nine at a time since most of it waits, and leaves nothing behind.
 */
import { execFile } from "node:child_process"
import { rmSync } from "node:fs"
import { join } from "node:path"
import { change, copyOf, root } from "./copy.ts"
import { type Mutant, mutants, type Test } from "./mutant-list.ts"

const copied = ["src", "test", "examples", "package.json", "tsconfig.json", "vitest.config.ts"]

interface Outcome {
  readonly passed: boolean
  readonly failed: boolean
  readonly output: string
}

/** What hangs, broken as it is, is given up after so many milliseconds. Programs that a test starts take their time. */
const patience = (file: string): number => (file.startsWith("test/e2e/") ? 25_000 : 10_000)

/** A run that says neither has judged nothing, and takes place once more: a worker was killed, or never came up. */
const judge = async (dir: string, test: Test): Promise<Outcome> => {
  const outcome = await run(dir, test)
  return outcome.passed || outcome.failed ? outcome : run(dir, test)
}

const run = (dir: string, [file, name]: Test): Promise<Outcome> =>
  new Promise((resolve) => {
    const pattern = name.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")
    const vitest = join(root, "node_modules/vitest/vitest.mjs")
    const args = [vitest, "run", file, "--testNamePattern", pattern, "--testTimeout", `${patience(file)}`]
    const env = { ...process.env, NODE_OPTIONS: "", NO_COLOR: "1", FORCE_COLOR: "" }
    const options = { cwd: dir, env, maxBuffer: 64 * 1024 * 1024, timeout: 4 * patience("test/e2e/") }
    execFile(process.execPath, args, options, (error, stdout, stderr) => {
      const summary = /Tests .*/.exec(plain(stdout))?.[0] ?? ""
      const failed = /\b[1-9]\d* failed/.test(summary)
      resolve({
        passed: error === null && !failed && /\b[1-9]\d* passed/.test(summary),
        failed: error !== null && failed,
        output: stdout + stderr
      })
    })
  })

const plain = (output: string): string =>
  output.replaceAll(new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, "g"), "")

const tested = "--tested"
const isTested = process.argv.includes(tested)

let survivors = 0

const survived = (line: string): void => {
  survivors++
  console.log(line)
}

/** Plays mutants on a copy of its own, until none is left. */
const lane = async (queue: Array<Mutant>, sound: Map<string, Promise<Outcome>>): Promise<void> => {
  const dir = copyOf("mutants", copied)
  try {
    for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
      const { file, from, test, title } = mutant
      const promise = test.join(": ")
      if (!isTested) {
        const unbroken = sound.get(promise) ?? judge(dir, test)
        sound.set(promise, unbroken)
        const { output, passed } = await unbroken
        if (!passed) {
          survived(`${title}: ${promise} does not pass as it is:\n${output}`)
          continue
        }
      }
      const undo = change(dir, mutant)
      if (undo === undefined) {
        survived(`${title}: ${file} does not have this exactly once:\n${from}`)
        continue
      }
      const { failed, output } = await judge(dir, test)
      undo()
      if (failed) console.log(`killed   ${title} (${promise})`)
      else survived(`SURVIVED ${title} (${promise})\n${output}`)
    }
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

const wanted = process.argv.slice(2).find((arg) => arg !== tested) ?? ""
const chosen = mutants.filter(({ test: [file, name], title }) => `${file}: ${name} ${title}`.includes(wanted))
const queue = [...chosen]
const sound = new Map<string, Promise<Outcome>>()
await Promise.all(Array.from({ length: 9 }, () => lane(queue, sound)))
console.log(`${chosen.length} mutants, ${survivors} survived`)
process.exitCode = survivors === 0 ? 0 : 1
