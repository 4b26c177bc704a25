/** Fastify 5.12.8 alone: `app.close()` on a signal. Its limit is whoever kills the process. */
import { application, closeAll, listenAll } from "./fastify-app.ts"
import { say } from "./settings.ts"

const apps = application()

let stopping: Promise<unknown> | undefined
const stop = () => {
  stopping ??= closeAll(apps).then(() => say("closed"))
}
process.once("SIGTERM", stop)
process.once("SIGINT", stop)

await listenAll(apps)
