/** close-with-grace 2.5.0. README, "Example with Fastify": it calls `app.close()`; `delay` is its limit. */
import { load } from "../../peers/load.ts"
import { application, closeAll, listenAll } from "./fastify-app.ts"
import { settings } from "./settings.ts"

const closeWithGrace =
  load<(options: { delay: number }, close: (event: { err?: Error }) => Promise<unknown>) => void>("close-with-grace")

const apps = application()

closeWithGrace({ delay: settings.grace }, async ({ err }) => {
  if (err !== undefined) console.error(err)
  await closeAll(apps)
})

await listenAll(apps)
