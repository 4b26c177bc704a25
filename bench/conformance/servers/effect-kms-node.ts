/**
 * effect-kms around servers whose requests someone else answers, as its README has it for Express and its like:
 * `KmsHttp.layerNode`, and `KmsHijack` for WebSockets of `ws`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Kms from "effect-kms/Kms"
import * as KmsHijack from "effect-kms/KmsHijack"
import * as KmsHttp from "effect-kms/KmsHttp"
import { patience, Resources } from "./effect.ts"
import { address, announce, attach, create, routes } from "./plain.ts"
import { settings } from "./settings.ts"

const serve = (name: string, port: number) =>
  Layer.unwrap(
    Effect.map(KmsHijack.KmsHijack, (hijack) =>
      KmsHttp.layerNode(
        () => {
          const server = create(routes)
          if (settings.mode.startsWith("http")) {
            attach(server, { onWebSocket: (socket) => hijack.adoptUnsafe(socket) })
          }
          announce(server, name)
          return server
        },
        { host: "127.0.0.1", port, ...patience }
      )
    )
  )

serve("port", address.port).pipe(
  Layer.provide(settings.second ? serve("second", 0) : Layer.empty),
  Layer.provide(KmsHijack.layer()),
  Layer.provide(Resources),
  Kms.launch({ timeout: settings.grace, forceTimeout: "1 second", lameDuck: settings.lameDuck }),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
