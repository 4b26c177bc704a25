/**
 * Takes away what keeps each invariant of DESIGN.md, one after the other, and sees that the test named after it fails. A
 * mutant that survives is a promise that no test holds up; it fails this program.
 *
 *     npm run mutants [part of a title]
 *
 * Works on a copy of the project, and leaves nothing behind.
 */
import { spawnSync } from "node:child_process"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

interface Mutant {
  readonly invariant: number
  /** What is broken, as a sentence. */
  readonly title: string
  readonly file: string
  /** This text, which is in the file exactly once, becomes the other. */
  readonly from: string
  readonly to: string
}

const mutants: ReadonlyArray<Mutant> = [
  {
    invariant: 1,
    title: "the listening socket stays open during the drain",
    file: "internal/http.ts",
    from: "NetServer.prototype.close.call(this.server)",
    to: "void NetServer"
  },
  {
    invariant: 1,
    title: "a listener drains only when its own scope closes",
    file: "internal/drain.ts",
    from: "this.drainOn = options.drainOn",
    to: 'this.drainOn = options.drainOn === "release" ? options.drainOn : "release"'
  },
  {
    invariant: 2,
    title: "the first of several pipelined responses says close",
    file: "internal/http.ts",
    from: "if (work !== undefined && !(work instanceof Set) && !work.response.headersSent) this.askToLeave(work)",
    to: "for (const exchange of exchanges(connection)) exchange.response.shouldKeepAlive = false; void work"
  },
  {
    invariant: 2,
    title: "a connection that has half a request is closed at once",
    file: "internal/connections.ts",
    from: "this.waited = true\n      this.closeAt(now() + timing.closeTimeout)",
    to: "this.close()"
  },
  {
    invariant: 3,
    title: "nothing waits for what is in flight",
    file: "internal/supervisor.ts",
    from: "yield* Effect.raceFirst(Deferred.await(shutdown.empty), forced)",
    to: "void forced"
  },
  {
    invariant: 3,
    title: "a busy section is not counted",
    file: "internal/shutdown.ts",
    from: "return this.gate.live.size === 0 && this.with",
    to: "this.gate.close(); return this.with"
  },
  {
    invariant: 3,
    title: "listeners are not waited for",
    file: "internal/shutdown.ts",
    from: "this.withShutdown().every((drain) => drain.isDone())\n  }",
    to: "this.withShutdown().length >= 0\n  }"
  },
  {
    invariant: 4,
    title: "responses in flight do not say close",
    file: "internal/http.ts",
    from: "response.shouldKeepAlive = false\n  }",
    to: "void response\n  }"
  },
  {
    invariant: 5,
    title: "the deadline is not looked at",
    file: "internal/supervisor.ts",
    from: "Effect.timeoutOption(Fiber.await(unwinding), deadline - shutdown.now())",
    to: "Effect.timeoutOption(Fiber.await(unwinding), 3_600_000 + deadline - deadline)"
  },
  {
    invariant: 5,
    title: "finalizers are waited for after the cut, for ever",
    file: "internal/supervisor.ts",
    from: "Effect.timeoutOption(Fiber.await(unwinding), left)",
    to: "Effect.timeoutOption(Fiber.await(unwinding), left + 3_600_000)"
  },
  {
    invariant: 6,
    title: "a second signal is ignored",
    file: "internal/signals.ts",
    from: "if (seen) return on.again(signal)",
    to: "if (seen) return"
  },
  {
    invariant: 6,
    title: "the echo of a signal counts as a second one",
    file: "internal/signals.ts",
    from: "const echo = 500",
    to: "const echo = 0"
  },
  {
    invariant: 7,
    title: "the scope of a launched layer is not closed",
    file: "Kms.ts",
    from: "release: (exit) => Scope.close(scope, exit)",
    to: "release: (exit) => Effect.asVoid(Effect.succeed([Scope.close, exit]))"
  },
  {
    invariant: 7,
    title: "signal handlers stay",
    file: "internal/supervisor.ts",
    from: "yield* Scope.close(listening, Exit.void)",
    to: "void listening"
  },
  {
    invariant: 8,
    title: "the server's own timer is not ended when the last connection goes",
    file: "internal/http.ts",
    from: "if (this.isDraining && this.registry.all.size === 0) this.letGoOfServer()",
    to: ""
  },
  {
    invariant: 8,
    title: "the server's own timer is not ended when there is no connection",
    file: "internal/http.ts",
    from: "    if (this.registry.all.size === 0) this.letGoOfServer()",
    to: ""
  },
  {
    invariant: 8,
    title: "a keep-alive handle is left behind",
    file: "internal/drain.ts",
    from: "this.endedAt = this.now()",
    to: "this.endedAt = this.now(); globalThis.setInterval(() => {}, 1000)"
  },
  {
    invariant: 9,
    title: "the lame duck goes by real time",
    file: "internal/supervisor.ts",
    from: "yield* Effect.timeoutOption(forced, lameDuck)",
    to: "yield* Effect.provideService(Effect.timeoutOption(forced, lameDuck), Clock.Clock, Clock.Clock.defaultValue())"
  },
  {
    invariant: 9,
    title: "a quiet connection is never looked at",
    file: "internal/connections.ts",
    from: "Effect.runFork(Effect.provideService(this.sweep, Clock.Clock, Clock.Clock.defaultValue()))",
    to: "void Effect.provideService(this.sweep, Clock.Clock, Clock.Clock.defaultValue())"
  },
  {
    invariant: 10,
    title: "the listener drains with the first application that closes",
    file: "KmsHttp.ts",
    from: "serves.isEmpty || drain.isBegun() ? drain.run : drainServe(serve, opened)",
    to: "true || serves.isEmpty ? drain.run : drainServe(serve, opened)"
  },
  {
    invariant: 10,
    title: "an application that closes does not wait for its requests",
    file: "KmsHttp.ts",
    from: "drain.run : drainServe(serve, opened)",
    to: "drain.run : Effect.asVoid(Effect.succeed([drainServe, opened]))"
  },
  {
    invariant: 11,
    title: "what ends by itself is not counted",
    file: "internal/http.ts",
    from: 'if (this.state === "draining") {\n      this.drained++',
    to: 'if (this.state === "draining") {'
  },
  {
    invariant: 11,
    title: "what is cut is not noted",
    file: "internal/http.ts",
    from: "this.cut++\n",
    to: ""
  },
  {
    invariant: 12,
    title: "every request has a listener of its own",
    file: "internal/http.ts",
    from: 'response.on("close", responseClosed)',
    to: 'response.on("close", () => responseClosed.call(response))'
  },
  {
    invariant: 12,
    title: "every request starts a fiber",
    file: "internal/http.ts",
    from: 'response.on("close", responseClosed)',
    to: 'Effect.runFork(Effect.void); response.on("close", responseClosed)'
  }
]

const root = fileURLToPath(new URL("..", import.meta.url))
const copied = ["src", "test", "examples", "package.json", "tsconfig.json", "vitest.config.ts"]

const run = (dir: string, invariant: number) =>
  spawnSync(
    process.execPath,
    [
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      [4, 5, 8].includes(invariant) ? "test/e2e/invariants.test.ts" : "test/invariants.test.ts",
      "--testNamePattern",
      `invariant ${invariant}:`
    ],
    { cwd: dir, encoding: "utf8", env: { ...process.env, NODE_OPTIONS: "" } }
  )

const passed = (output: string): boolean => /Tests .*\b1 passed/.test(output) && !/failed/.test(output)
const failed = (output: string): boolean => /Tests .*\b1 failed/.test(output)

const plain = (output: string): string =>
  output.replaceAll(new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, "g"), "")

const dir = mkdtempSync(join(tmpdir(), "mutants-"))
let survivors = 0
try {
  for (const name of copied) cpSync(join(root, name), join(dir, name), { recursive: true })
  symlinkSync(join(root, "node_modules"), join(dir, "node_modules"))
  const wanted = process.argv[2] ?? ""
  const chosen = mutants.filter(({ invariant, title }) => `invariant ${invariant}: ${title}`.includes(wanted))
  const sound = new Set<number>()
  for (const { file, from, invariant, title, to } of chosen) {
    const path = join(dir, "src", file)
    const source = readFileSync(path, "utf8")
    if (source.split(from).length !== 2) {
      console.error(`invariant ${invariant}: ${title}: ${file} does not have this exactly once:\n${from}`)
      survivors++
      continue
    }
    if (!sound.has(invariant)) {
      const { stderr, stdout } = run(dir, invariant)
      if (!passed(plain(stdout))) throw new Error(`invariant ${invariant} fails as it is:\n${stdout}${stderr}`)
      sound.add(invariant)
    }
    writeFileSync(
      path,
      source.replace(from, () => to)
    )
    const { status, stdout } = run(dir, invariant)
    writeFileSync(path, source)
    const killed = status !== 0 && failed(plain(stdout))
    if (!killed) survivors++
    console.log(`${killed ? "killed  " : "SURVIVED"} invariant ${invariant}: ${title}`)
  }
  console.log(`${chosen.length} mutants, ${survivors} survived`)
} finally {
  rmSync(dir, { recursive: true, force: true })
}
process.exitCode = survivors === 0 ? 0 : 1
