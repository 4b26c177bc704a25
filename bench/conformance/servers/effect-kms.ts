/**
 * effect-kms, as its README has it under "The program": `KmsHttp.layer`, `Kms.launch`, `Kms.teardown`. With a lame duck the
 * probes have a listener of their own, as under "Behind a load balancer".
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Kms from "effect-kms/Kms"
import * as KmsHealth from "effect-kms/KmsHealth"
import * as KmsHttp from "effect-kms/KmsHttp"
import { createServer } from "node:http"
import { patience, quietly, Resources, Routes } from "./effect.ts"
import { address, announce, create } from "./plain.ts"
import { began, say, settings } from "./settings.ts"

const announced = <S extends ReturnType<typeof create>>(server: S, name: string): S => {
  announce(server, name)
  return server
}

/** Answers at once, and goes on in the background. */
const Job = HttpRouter.add(
  "GET",
  "/job",
  Effect.gen(function* () {
    const job = Effect.sleep("800 millis").pipe(Effect.andThen(Effect.sync(() => say("job done"))), Kms.busy("job"))
    yield* Effect.forkDetach(job)
    began("/job")
    return HttpServerResponse.text("accepted")
  })
)

const serve = (name: string, port: number) =>
  HttpRouter.serve(Layer.merge(Routes, Job), quietly).pipe(
    Layer.provide(KmsHttp.layer(() => announced(create(), name), { host: "127.0.0.1", port, ...patience }))
  )

const Health = KmsHealth.serve().pipe(
  Layer.provide(
    KmsHttp.layer(() => announced(createServer(), "health"), { host: "127.0.0.1", port: 0, drainOn: "release" })
  )
)

const Beneath = Layer.mergeAll(
  settings.lameDuck > 0 ? Health : Layer.empty,
  settings.second ? serve("second", 0) : Layer.empty
)

serve("port", address.port).pipe(
  Layer.provide(Layer.fresh(Beneath)),
  Layer.provide(Resources),
  Kms.launch({ timeout: settings.grace, forceTimeout: "1 second", lameDuck: settings.lameDuck }),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
