import { assert, describe, it } from "@effect/vitest"
import { Cause, Config, ConfigProvider, Context, Effect, Exit, Fiber, Layer, Logger, References } from "effect"
import { TestClock } from "effect/testing"
import { Kms, KmsHijack, KmsHttp, KmsTest } from "effect-kms"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { PassThrough } from "node:stream"
import { fileOf, listening } from "./support/examples.ts"
import * as Host from "./support/host.ts"
import { start } from "./support/program.ts"

type Env = Record<string, string>

const fromEnv = (env: Env) => ConfigProvider.layer(ConfigProvider.fromEnv({ env }))

/** What a reader of the log gets, each line with its level. */
const logged = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
  return { lines, layer: Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel)("Info")) }
}

/** What a program says in an environment before it is told to end. */
const startedIn = Effect.fnUntraced(function* (env: Env, options: Kms.Options = {}) {
  const { layer, lines } = logged()
  yield* KmsTest.launch(Layer.empty, options).pipe(Effect.provide([layer, fromEnv(env)]))
  return lines
}, Effect.provide(KmsTest.layer))

const failure = (exit: Exit.Exit<unknown, unknown>): unknown => {
  assert.isTrue(Exit.isFailure(exit))
  return Cause.squash((exit as Exit.Failure<unknown, unknown>).cause)
}

describe("KMS_TERMINATION_GRACE_PERIOD", () => {
  it.effect("says nothing where it is not set", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* startedIn({}), [])
      assert.deepStrictEqual(yield* startedIn({ KMS_PRE_STOP: "60" }), [])
      // As everywhere in Effect.
      assert.deepStrictEqual(yield* startedIn({ KMS_TERMINATION_GRACE_PERIOD: "" }), [])
    })
  )

  it.effect("says nothing where the shutdown fits into it, to the last second", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* startedIn({ KMS_TERMINATION_GRACE_PERIOD: "27" }), [])
      assert.deepStrictEqual(yield* startedIn({ KMS_TERMINATION_GRACE_PERIOD: "32", KMS_PRE_STOP: "5" }), [])
      assert.deepStrictEqual(
        yield* startedIn({ KMS_TERMINATION_GRACE_PERIOD: "infinity" }, { timeout: "infinity" }),
        []
      )
    })
  )

  it.effect("warns once of a shutdown that takes longer, with the numbers and what to change", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* startedIn({ KMS_TERMINATION_GRACE_PERIOD: "26" }), [
        "Warn The shutdown may take 27s (timeout 25s + forceTimeout 2s), but KMS_TERMINATION_GRACE_PERIOD is 26s: " +
          "the process may be killed before it has ended. " +
          "Raise the grace period to 27s or more, or lower timeout to 24s or less"
      ])
    })
  )

  it.effect("counts what the preStop hook takes of it", () =>
    Effect.gen(function* () {
      const env = { KMS_TERMINATION_GRACE_PERIOD: "30 seconds", KMS_PRE_STOP: "2.5" }
      assert.deepStrictEqual(yield* startedIn(env, { forceTimeout: "3 seconds" }), [
        "Warn The shutdown may take 30s 500ms (KMS_PRE_STOP 2s 500ms + timeout 25s + forceTimeout 3s), " +
          "but KMS_TERMINATION_GRACE_PERIOD is 30s: the process may be killed before it has ended. " +
          "Raise the grace period to 30s 500ms or more, or lower timeout to 24s 500ms or less"
      ])
    })
  )

  it.effect("is always exceeded by a shutdown without a limit", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* startedIn({ KMS_TERMINATION_GRACE_PERIOD: "1 hour" }, { timeout: "infinity" }), [
        "Warn The shutdown may take for ever (timeout for ever + forceTimeout 2s), but KMS_TERMINATION_GRACE_PERIOD is " +
          "1h: the process may be killed before it has ended. Lower timeout to 59m 58s or less"
      ])
    })
  )

  it.effect("is not to be kept by a shorter timeout where nothing is left for one", () =>
    Effect.gen(function* () {
      const [line, ...more] = yield* startedIn({ KMS_TERMINATION_GRACE_PERIOD: "5", KMS_PRE_STOP: "4" })
      assert.match(line ?? "", /Raise the grace period to 31s or more$/)
      assert.deepStrictEqual(more, [])
      const [endless] = yield* startedIn({ KMS_TERMINATION_GRACE_PERIOD: "2" }, { timeout: "infinity" })
      assert.match(endless ?? "", /Give timeout a limit, and KMS_TERMINATION_GRACE_PERIOD more than it takes$/)
    })
  )

  for (const [name, value, problem] of [
    ["KMS_TERMINATION_GRACE_PERIOD", "soon", "not a duration"],
    ["KMS_TERMINATION_GRACE_PERIOD", "  ", "not a duration"],
    ["KMS_TERMINATION_GRACE_PERIOD", "-5", "a duration cannot be negative"],
    ["KMS_TERMINATION_GRACE_PERIOD", "0", "it has to be longer than zero"],
    ["KMS_PRE_STOP", "5 parsecs", "not a duration"],
    ["KMS_PRE_STOP", "infinity", "it has to be finite"]
  ] as const) {
    it.effect(`${name}=${JSON.stringify(value)} fails the start with an error that names both`, () =>
      Effect.gen(function* () {
        let isBuilt = false
        const app = Layer.effectDiscard(Effect.sync(() => void (isBuilt = true)))
        yield* KmsTest.launch(app).pipe(Effect.provide(fromEnv({ [name]: value })))
        assert.strictEqual(yield* KmsTest.exitCode, 1)
        const error = failure(yield* KmsTest.exit)
        assert.instanceOf(error, Kms.OptionError)
        assert.strictEqual(error.message, `Option ${name} is ${JSON.stringify(value)}: ${problem}`)
        assert.isFalse(isBuilt)
      }).pipe(Effect.provide(KmsTest.layer))
    )
  }

  it.effect("a provider that cannot be asked fails the start with an error that names the variable", () =>
    Effect.gen(function* () {
      const broken = ConfigProvider.make(() =>
        Effect.fail(new ConfigProvider.SourceError({ message: "no route to vault" }))
      )
      yield* KmsTest.launch(Layer.empty).pipe(Effect.provide(ConfigProvider.layer(broken)))
      const error = failure(yield* KmsTest.exit)
      assert.instanceOf(error, Kms.OptionError)
      assert.match(error.message, /KMS_TERMINATION_GRACE_PERIOD .*it cannot be read: .*no route to vault/)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("is read once, as the other variables are", () =>
    Effect.gen(function* () {
      const read: Array<string> = []
      const env = ConfigProvider.fromEnv({
        env: { KMS_TERMINATION_GRACE_PERIOD: "10", KUBERNETES_SERVICE_HOST: "::1" }
      })
      const counted = ConfigProvider.make((path) => {
        read.push(path.join("."))
        return env.load(path)
      })
      const { layer, lines } = logged()
      yield* KmsTest.launch(Layer.empty).pipe(Effect.provide([layer, ConfigProvider.layer(counted)]))
      yield* KmsTest.signal("SIGTERM")
      assert.strictEqual(yield* KmsTest.exitCode, 0)
      assert.deepStrictEqual(read, ["KMS_TERMINATION_GRACE_PERIOD", "KMS_PRE_STOP", "KUBERNETES_SERVICE_HOST"])
      assert.strictEqual(lines.filter((line) => line.startsWith("Warn")).length, 1)
      assert.strictEqual(lines.filter((line) => line.includes("KUBERNETES_SERVICE_HOST")).length, 1)
    }).pipe(Effect.provide(KmsTest.layer))
  )
})

describe("KUBERNETES_SERVICE_HOST", () => {
  const env = { KUBERNETES_SERVICE_HOST: "10.0.0.1" }

  it.effect("hints once at the lame duck where the option is not given", () =>
    Effect.gen(function* () {
      for (const options of [{}, { lameDuck: undefined }]) {
        const [line = "", ...more] = yield* startedIn(env, options)
        assert.match(line, /^Info KUBERNETES_SERVICE_HOST is set, and lameDuck is not: /)
        assert.deepStrictEqual(more, [])
      }
    })
  )

  it.effect("says nothing where one is given, be it zero or a function", () =>
    Effect.gen(function* () {
      for (const lameDuck of [0, "5 seconds", () => 0] as const) {
        assert.deepStrictEqual(yield* startedIn(env, { lameDuck }), [])
      }
    })
  )
})

describe("options from Config", () => {
  const env = fromEnv({ TIMEOUT: "5 seconds", SIGNALS: "SIGUSR2", PORT: "0", NAME: "tunnels" })
  const options = {
    timeout: Config.Duration("TIMEOUT"),
    signals: Config.map(Config.String("SIGNALS"), (signals) => signals.split(",") as Array<NodeJS.Signals>),
    lameDuck: Config.Duration("LAME_DUCK").pipe(Config.withDefault(0)),
    onStopped: Config.succeed(() => Effect.void)
  }
  const stuck = Kms.busy("stuck")(Effect.never)
  const App = Layer.effectDiscard(Effect.forkScoped(stuck))

  for (const [name, program] of [
    ["Kms.launchConfig", Kms.launchConfig(App, options)],
    ["Kms.launchConfig, in a pipe", App.pipe(Kms.launchConfig(options))],
    ["Kms.listenConfig", Kms.listenConfig(stuck, options)],
    ["Kms.listenConfig, in a pipe", stuck.pipe(Kms.listenConfig(options))],
    ["Kms.listenConfig, of a whole Config", stuck.pipe(Kms.listenConfig(Config.unwrap<Kms.Options>(options)))]
  ] as const) {
    it.effect(`${name} ends as they say`, () =>
      Effect.gen(function* () {
        const { layer, lines } = logged()
        const host = Host.make()
        const fiber = yield* program.pipe(
          Effect.provide([layer, env]),
          host.provide,
          Effect.forkScoped({ startImmediately: true })
        )
        assert.isFalse(host.signal("SIGTERM"))
        assert.isTrue(host.signal("SIGUSR2"))
        yield* Effect.repeat(Effect.yieldNow, { times: 50 })
        yield* TestClock.adjust("5 seconds")
        const error = failure(yield* Fiber.await(fiber))
        assert.instanceOf(error, Kms.ShutdownTimeout)
        assert.strictEqual(error.report.millis, 5000)
        assert.match(lines.join("\n"), /Shutting down \(SIGUSR2\)\. At most 5s\./)
      })
    )

    it.effect(
      `${name} fails with a ConfigError where a value is missing, and an OptionError where it cannot be meant`,
      () =>
        Effect.gen(function* () {
          const missing = yield* Effect.exit(Effect.provide(program, fromEnv({})))
          assert.strictEqual((failure(missing) as Config.ConfigError)._tag, "ConfigError")
          assert.include(String(failure(missing)), "TIMEOUT")
          const wrong = yield* Effect.exit(
            Effect.provide(program, fromEnv({ TIMEOUT: "0 seconds", SIGNALS: "SIGTERM" }))
          )
          assert.instanceOf(failure(wrong), Kms.OptionError)
        })
    )
  }

  it.live("KmsHttp.layerNodeConfig listens where they say", () =>
    Effect.gen(function* () {
      const server = createServer((_, response) => void response.end("hello"))
      const layer = KmsHttp.layerNodeConfig(() => server, { port: Config.Int("PORT"), quietPeriod: Config.succeed(0) })
      yield* Layer.build(Layer.provide(layer, env))
      const { port } = server.address() as AddressInfo
      const text = yield* Effect.promise(() => fetch(`http://127.0.0.1:${port}`).then((response) => response.text()))
      assert.strictEqual(text, "hello")

      const missing = yield* Effect.exit(Effect.scoped(Layer.build(Layer.provide(layer, fromEnv({})))))
      assert.strictEqual((failure(missing) as Config.ConfigError)._tag, "ConfigError")
    })
  )

  it.effect("KmsHijack.layerConfig calls what it adopts as they say", () =>
    Effect.gen(function* () {
      const layer = KmsHijack.layerConfig({ name: Config.String("NAME"), closeTimeout: Config.succeed(0) })
      const { services } = yield* KmsTest.launch(Layer.provide(layer, env))
      Context.get(yield* services, KmsHijack.KmsHijack).adoptUnsafe(new PassThrough())
      assert.deepStrictEqual(
        (yield* KmsTest.status).listeners.map(({ connections, name }) => [name, connections]),
        [["tunnels", 1]]
      )

      const missing = yield* Effect.exit(Effect.scoped(Layer.build(Layer.provide(layer, fromEnv({})))))
      assert.strictEqual((failure(missing) as Config.ConfigError)._tag, "ConfigError")
    }).pipe(Effect.provide(KmsTest.layer))
  )
})

describe("a real process", () => {
  const main = fileOf("01-http", "main.ts")

  it.live("warns and hints in its log, and runs", () =>
    Effect.gen(function* () {
      const env = { KMS_TERMINATION_GRACE_PERIOD: "20", KUBERNETES_SERVICE_HOST: "10.0.0.1", PORT: "0" }
      const program = yield* start(main, { env })
      yield* program.printed(listening)
      yield* program.kill("SIGTERM")
      assert.strictEqual((yield* program.ended).code, 0)
      const said = (part: string) => program.output().split(part).length - 1
      assert.strictEqual(said("lower timeout to 18s or less"), 1, program.output())
      assert.strictEqual(said("lameDuck is not"), 1, program.output())
    })
  )

  it.live("does not start with a value that cannot be meant", () =>
    Effect.gen(function* () {
      const program = yield* start(main, { env: { KMS_PRE_STOP: "soon", PORT: "0" } })
      assert.strictEqual((yield* program.ended).code, 1)
      assert.include(program.output(), 'Option KMS_PRE_STOP is "soon": not a duration')
      assert.notMatch(program.output(), listening)
    })
  )
})
