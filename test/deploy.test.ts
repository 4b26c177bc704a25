import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Result } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { parseAllDocuments } from "yaml"
import * as kubernetes from "../examples/kubernetes/shutdown.ts"
import { sockets } from "../examples/systemd/activation.ts"
import * as systemd from "../examples/systemd/shutdown.ts"
import { type Answer, ask, fileOf, listening, refused } from "./support/examples.ts"
import { start } from "./support/program.ts"

const read = (name: string, file: string): string => readFileSync(fileOf(name, file), "utf8")

const seconds = (input: Duration.Input): number => Duration.toSeconds(input)

/** Under this path as a probe has it, `undefined` where nothing answers. */
const probe = (port: number, path: string): Effect.Effect<Answer | undefined> =>
  ask(port, path, { headers: { connection: "close" } }).pipe(
    Effect.flatMap(({ answer }) => answer),
    Effect.orElseSucceed(() => undefined),
    Effect.scoped
  )

describe("the kubernetes example", () => {
  interface Probe {
    readonly httpGet: { readonly path: string; readonly port: string }
    readonly periodSeconds: number
    readonly timeoutSeconds: number
    readonly failureThreshold: number
  }
  interface Container {
    readonly command?: unknown
    readonly args?: unknown
    readonly lifecycle?: unknown
    readonly env: ReadonlyArray<{ readonly name: string; readonly value: string }>
    readonly ports: ReadonlyArray<{ readonly name: string; readonly containerPort: number }>
    readonly startupProbe: Probe
    readonly readinessProbe: Probe
    readonly livenessProbe: Probe
    readonly securityContext: { readonly [name: string]: unknown }
  }
  interface Labels {
    readonly matchLabels: Record<string, string>
  }
  interface Deployment {
    readonly spec: {
      readonly replicas: number
      readonly selector: Labels
      readonly strategy: { readonly type: string; readonly rollingUpdate: { readonly maxUnavailable: number } }
      readonly template: {
        readonly metadata: { readonly labels: Record<string, string> }
        readonly spec: {
          readonly terminationGracePeriodSeconds: number
          readonly securityContext: { readonly runAsNonRoot: boolean; readonly runAsUser: number }
          readonly containers: readonly [Container]
        }
      }
    }
  }
  interface Service {
    readonly spec: {
      readonly selector: Record<string, string>
      readonly ports: readonly [{ readonly targetPort: string }]
    }
  }
  interface Budget {
    readonly spec: { readonly minAvailable: number; readonly selector: Labels }
  }

  const manifests = new Map(
    parseAllDocuments(read("kubernetes", "deployment.yaml"), { uniqueKeys: true }).map((document) => {
      assert.deepStrictEqual(document.errors, [])
      const manifest = document.toJS() as { readonly kind: string }
      return [manifest.kind, manifest]
    })
  )
  const { replicas, selector, strategy, template } = (manifests.get("Deployment") as unknown as Deployment).spec
  const pod = template.spec
  const [container] = pod.containers
  const { livenessProbe, readinessProbe, startupProbe } = container
  const probes = [startupProbe, readinessProbe, livenessProbe]
  const env = Object.fromEntries(container.env.map(({ name, value }) => [name, value]))
  const ports = Object.fromEntries(container.ports.map(({ containerPort, name }) => [name, containerPort]))
  const { health, shutdown } = kubernetes
  const lameDuck = seconds(shutdown.lameDuck)

  /** The instructions of the Dockerfile, a line that is continued being one; those of its last stage alone. */
  const instructions = read("kubernetes", "Dockerfile")
    .replaceAll(/^\s*#.*\n/gm, "")
    .replaceAll("\\\n", " ")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => /^(\w+)\s+(.*)$/.exec(line)!.slice(1) as [instruction: string, value: string])
  const lastStage = instructions.slice(instructions.map(([instruction]) => instruction).lastIndexOf("FROM"))
  const valuesOf = (name: string) => lastStage.filter(([instruction]) => instruction === name).map(([, value]) => value)
  /** In the exec form. The shell form is not JSON, and node not process 1. */
  const command = () => JSON.parse(valuesOf("CMD").join()) as [string, ...Array<string>]

  it("gives the shutdown the time that it may take, and some to spare", () => {
    const spare = pod.terminationGracePeriodSeconds - seconds(shutdown.timeout) - seconds(shutdown.forceTimeout)
    assert.isAtLeast(spare, 2)
    assert.strictEqual(env.KMS_TERMINATION_GRACE_PERIOD, String(pod.terminationGracePeriodSeconds))
    // It would come out of the same time.
    assert.isUndefined(container.lifecycle)
  })

  it("has a lame duck in which the probe sees that the pod is not ready, and two seconds for all to hear of it", () => {
    const { failureThreshold, periodSeconds, timeoutSeconds } = readinessProbe
    assert.isAtLeast(lameDuck - (periodSeconds * failureThreshold + timeoutSeconds), 2)
    assert.isAbove(seconds(shutdown.timeout) - lameDuck, lameDuck, "what is in flight has most of the timeout")
  })

  it("has checks that answer before the probe gives up, and anew for each probe", () => {
    assert.isBelow(seconds(health.checkTimeout), readinessProbe.timeoutSeconds)
    assert.isBelow(seconds(health.cacheFor), readinessProbe.periodSeconds)
  })

  it("probes a port of its own, and does not kill for what only takes readiness away", () => {
    for (const { httpGet } of probes) assert.strictEqual(httpGet.port, "health")
    assert.strictEqual(startupProbe.httpGet.path, livenessProbe.httpGet.path)
    assert.notStrictEqual(livenessProbe.httpGet.path, readinessProbe.httpGet.path)
    assert.deepStrictEqual(ports, { http: Number(env.PORT), health: Number(env.HEALTH_PORT) })
    const { spec } = manifests.get("Service") as unknown as Service
    assert.strictEqual(spec.ports[0].targetPort, "http")
  })

  it("replaces pods that are there without going below their number, and lets a node be drained", () => {
    assert.deepStrictEqual([strategy.type, strategy.rollingUpdate.maxUnavailable], ["RollingUpdate", 0])
    const budget = (manifests.get("PodDisruptionBudget") as unknown as Budget).spec
    assert.isAtLeast(budget.minAvailable, 1)
    assert.isBelow(budget.minAvailable, replicas)
    const service = (manifests.get("Service") as unknown as Service).spec
    for (const labels of [selector.matchLabels, service.selector, budget.selector.matchLabels]) {
      assert.deepStrictEqual(labels, template.metadata.labels)
    }
  })

  it("runs node as process 1 and not as root, in an image that has all of its files", () => {
    assert.match(valuesOf("CMD").join(), /^\["node", /)
    assert.deepStrictEqual([container.command, container.args, valuesOf("ENTRYPOINT")], [undefined, undefined, []])
    assert.deepStrictEqual(valuesOf("USER"), [String(pod.securityContext.runAsUser)])
    assert.isTrue(pod.securityContext.runAsNonRoot)
    assert.isTrue(container.securityContext.readOnlyRootFilesystem)
    assert.isFalse(container.securityContext.allowPrivilegeEscalation)
    assert.include(valuesOf("ENV"), "NODE_ENV=production")
    assert.deepStrictEqual(valuesOf("EXPOSE"), [Object.values(ports).join(" ")])

    const copied = valuesOf("COPY").flatMap((value) => value.split(/\s+/).slice(0, -1))
    const needed = new Set(command().slice(1))
    for (const file of needed) {
      assert.include(copied, file)
      for (const [, found] of read("kubernetes", file).matchAll(/from "\.\/(.*)"/g)) needed.add(found!)
    }
    assert.isAbove(needed.size, 1)
  })

  /** As the kubelet would: with the command of the Dockerfile and the environment of both, but on free ports. */
  const run = (more: Record<string, string> = {}) =>
    Effect.gen(function* () {
      const [, file, ...args] = command()
      const program = yield* start(fileOf("kubernetes", file!), {
        args,
        env: {
          ...Object.fromEntries(valuesOf("ENV").map((value) => value.split("=") as [string, string])),
          ...env,
          KUBERNETES_SERVICE_HOST: "10.96.0.1",
          PORT: "0",
          HEALTH_PORT: "0",
          ...more
        }
      })
      // The one beneath listens first.
      const found = yield* program.printed(new RegExp(`${listening.source}[^]*${listening.source}`))
      const [health, http] = found.slice(1).map(Number) as [number, number]
      return { program, ports: { health, http } as Record<string, number> }
    })

  /** What a probe is told, period after period, until it says `status`. */
  const until = (port: number, path: string, status: number) =>
    Effect.gen(function* () {
      while ((yield* probe(port, path))?.status !== status) yield* Effect.sleep("50 millis")
    })

  it.live(
    "is not ready at once while it serves on, answers what is in flight, lives to the end and exits in time with 0",
    () =>
      Effect.gen(function* () {
        const { ports, program } = yield* run()
        for (const { httpGet } of probes) yield* until(ports[httpGet.port]!, httpGet.path, 200)
        const slow = yield* ask(ports.http!, "/slow")
        yield* Effect.callback<void>((resume) => void slow.sent.once("finish", () => resume(Effect.void)))

        const toldAt = performance.now()
        yield* program.kill("SIGTERM")
        yield* program.printed(/Shutting down \(SIGTERM\)/)
        const ready = () => probe(ports.health!, readinessProbe.httpGet.path)
        const live = () => probe(ports.health!, livenessProbe.httpGet.path)
        const first = yield* ready()
        assert.strictEqual(first?.status, 503)
        assert.strictEqual(JSON.parse(first!.body).phase, "LameDuck")

        // Whoever has not heard of it yet is served, on new connections too, for as long as was promised.
        let served = 0
        for (;;) {
          const answer = yield* probe(ports.http!, "/")
          if (answer === undefined) break
          assert.deepStrictEqual([answer.status, answer.body, answer.headers.connection], [200, "Home\n", "close"])
          assert.strictEqual((yield* ready())?.status, 503)
          assert.strictEqual((yield* live())?.status, 200)
          served++
          yield* Effect.sleep("100 millis")
        }
        assert.isAtLeast(performance.now() - toldAt, lameDuck * 1000 - 10, `${served} requests were served`)
        assert.isAbove(served, 1)

        // What is in flight is not killed for being slow to end.
        yield* refused(ports.http!)
        assert.isFalse(slow.isAnswered())
        assert.strictEqual(JSON.parse((yield* ready())!.body).phase, "Draining")
        let lives = 0
        while (!slow.isAnswered()) {
          const answer = yield* live()
          if (answer === undefined && slow.isAnswered()) break
          assert.strictEqual(answer?.status, 200)
          lives++
          yield* Effect.sleep("100 millis")
        }
        assert.isAbove(lives, 1)
        const answer = yield* slow.answer
        assert.deepStrictEqual([answer.status, answer.body], [200, "Worth the wait\n"])
        const ended = yield* program.ended
        assert.deepStrictEqual([ended.code, ended.signal], [0, null])
        assert.isBelow(ended.at - toldAt, pod.terminationGracePeriodSeconds * 1000)
        // It has nothing to say against the numbers.
        assert.notMatch(program.output(), /WARN|lameDuck/)
      }),
    60_000
  )

  it.live("says so when the pod would be killed before its shutdown is over", () =>
    Effect.gen(function* () {
      const tooShort = String(seconds(shutdown.timeout) + seconds(shutdown.forceTimeout) - 1)
      const { program } = yield* run({ KMS_TERMINATION_GRACE_PERIOD: tooShort })
      assert.match(program.output(), new RegExp(`WARN.*KMS_TERMINATION_GRACE_PERIOD is ${tooShort}s`))
    })
  )
})

describe("the units of the systemd example", () => {
  type Unit = ReadonlyMap<string, ReadonlyArray<string>>

  /** The settings of all sections by their name. No name is in two sections here. */
  const unit = (file: string): Unit => {
    const settings = new Map<string, Array<string>>()
    for (const [, name, value] of read("systemd", file).matchAll(/^(\w+)=(.*)$/gm)) {
      settings.set(name!, [...(settings.get(name!) ?? []), value!])
    }
    return settings
  }
  const only = (unit: Unit, name: string): string => {
    assert.strictEqual(unit.get(name)?.length, 1, name)
    return unit.get(name)![0]!
  }
  const service = unit("effect-kms-example.service")

  it("give the shutdown the time that it may take, and some to spare", () => {
    const stop = Number(only(service, "TimeoutStopSec"))
    const { forceTimeout, timeout } = systemd.shutdown
    assert.isAtLeast(stop - seconds(timeout) - seconds(forceTimeout), 2)
    assert.include(service.get("Environment")!, `KMS_TERMINATION_GRACE_PERIOD=${stop}`)
    assert.strictEqual(only(service, "KillSignal"), "SIGTERM")
  })

  it("belong together: the sockets are those of the service, and have the names that the program looks for", () => {
    const files = only(service, "Sockets").split(" ")
    assert.strictEqual(only(service, "Requires"), files.join(" "))
    assert.deepStrictEqual(
      files.map((file) => [only(unit(file), "FileDescriptorName"), unit(file).get("Accept") ?? "no"]),
      [
        ["api", "no"],
        ["health", "no"]
      ]
    )
    for (const file of files) {
      const [started] = unit(file).get("Service") ?? [file.replace(/\.socket$/, ".service")]
      assert.strictEqual(started, "effect-kms-example.service")
    }
    const [node, ...args] = only(service, "ExecStart").split(" ")
    assert.match(node!, /^\/.*\/node$/)
    assert.isTrue(args.length === 1 && existsSync(fileOf("systemd", args[0]!)))
  })
})

describe("the sockets of systemd", () => {
  const pid = String(process.pid)

  const given = (env: Record<string, string>) =>
    Effect.runSync(
      Effect.result(sockets).pipe(
        Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env })),
        Effect.map(Result.mapError((error) => `${error._tag}: ${error.message}`))
      )
    )

  it("begin with descriptor 3, and have the names that were passed with them", () => {
    assert.deepStrictEqual(
      given({ LISTEN_PID: pid, LISTEN_FDS: "3", LISTEN_FDNAMES: "health:api:api" }),
      Result.succeed([
        { name: "health", fd: 3 },
        { name: "api", fd: 4 },
        { name: "api", fd: 5 }
      ])
    )
  })

  it("are unknown by name where no names were passed", () => {
    assert.deepStrictEqual(
      given({ LISTEN_PID: pid, LISTEN_FDS: "2" }),
      Result.succeed([
        { name: "unknown", fd: 3 },
        { name: "unknown", fd: 4 }
      ])
    )
  })

  it.each([
    { title: "no variable is set", env: {} },
    { title: "they are not said to be for anybody", env: { LISTEN_FDS: "1", LISTEN_FDNAMES: "api" } },
    { title: "they are for an ancestor, whatever it was given", env: { LISTEN_PID: "1", LISTEN_FDS: "none" } },
    { title: "none is passed", env: { LISTEN_PID: pid } }
  ])("are none where $title", ({ env }) => {
    assert.deepStrictEqual(given(env), Result.succeed([]))
  })

  const count = "not a number of descriptors"
  it.each([
    { variable: "LISTEN_PID", value: "self", problem: "not the id of a process" },
    { variable: "LISTEN_PID", value: "-1", problem: "not the id of a process" },
    { variable: "LISTEN_PID", value: "1.0", problem: "not the id of a process" },
    { variable: "LISTEN_FDS", value: "two", problem: count },
    { variable: "LISTEN_FDS", value: "-1", problem: count },
    { variable: "LISTEN_FDS", value: "0", problem: count },
    { variable: "LISTEN_FDS", value: "1.5", problem: count },
    { variable: "LISTEN_FDS", value: "0x1", problem: count },
    { variable: "LISTEN_FDS", value: "2147483645", problem: count },
    { variable: "LISTEN_FDNAMES", value: "api:health:admin", problem: "3 names for 2 descriptors" },
    { variable: "LISTEN_FDNAMES", value: "api", problem: "1 names for 2 descriptors" }
  ])("are an error that names it where $variable is $value", ({ problem, value, variable }) => {
    assert.deepStrictEqual(
      given({ LISTEN_PID: pid, LISTEN_FDS: "2", LISTEN_FDNAMES: "api:health", [variable]: value }),
      Result.fail(`ActivationError: ${variable} is "${value}": ${problem}`)
    )
  })
})
