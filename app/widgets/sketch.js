// A canvas to draw on with mouse, finger or pen: white ink on black, as the networks know it.
// data: { image }, what was drawn before, as a data URL. Triggers `image` with a PNG after every stroke, "" when it is empty.
const SIDE = 280
const PEN = 22

export default function ({ parentElement, data, setTriggerValue }) {
  const canvas = parentElement.querySelector("canvas")
  const [undo, clear] = parentElement.querySelectorAll("button")
  canvas.send = (url) => setTriggerValue("image", url)
  if (canvas.ready) return
  canvas.ready = true
  canvas.width = canvas.height = SIDE
  const pen = canvas.getContext("2d")
  const strokes = []
  let earlier = null // the picture of before, under the strokes
  let active = null // the pointer that draws

  function show() {
    pen.fillStyle = "black"
    pen.fillRect(0, 0, SIDE, SIDE)
    if (earlier) pen.drawImage(earlier, 0, 0, SIDE, SIDE)
    Object.assign(pen, { strokeStyle: "white", lineWidth: PEN, lineCap: "round", lineJoin: "round" })
    for (const points of strokes) {
      pen.beginPath()
      pen.moveTo(...points[0])
      for (const point of points) pen.lineTo(...point)
      pen.stroke()
    }
    undo.disabled = !strokes.length
    clear.disabled = !strokes.length && !earlier
  }

  function changed() {
    show()
    canvas.send(strokes.length || earlier ? canvas.toDataURL("image/png") : "")
  }

  function place(event) {
    const box = canvas.getBoundingClientRect()
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE]
  }

  canvas.onpointerdown = (event) => {
    if (active !== null || event.button !== 0) return
    active = event.pointerId
    canvas.setPointerCapture(active)
    strokes.push([place(event)])
    show()
  }
  canvas.onpointermove = (event) => {
    if (event.pointerId !== active) return
    const events = event.getCoalescedEvents?.() ?? []
    strokes.at(-1).push(...(events.length ? events : [event]).map(place))
    show()
  }
  canvas.onpointerup = canvas.onpointercancel = (event) => {
    if (event.pointerId !== active) return
    active = null
    changed()
  }
  undo.onclick = () => {
    strokes.pop()
    changed()
  }
  clear.onclick = () => {
    strokes.length = 0
    earlier = null
    changed()
  }
  show()
  if (data?.image) {
    const picture = new Image()
    picture.onload = () => {
      earlier = picture
      show()
    }
    picture.src = data.image
  }
}
