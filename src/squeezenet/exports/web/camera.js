// The camera: classifies its frames while it runs, and takes photos.
function setCamera(isOn) {
  for (const id of ["video", "live", "shoot", "stop"]) show($(id), isOn);
  for (const id of ["choose", "camera"]) show($(id), !isOn);
  if (isOn) show($("empty"), false);
  $("stage").classList.toggle("empty", !isOn && $("photo").hidden);
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = $("video").srcObject = null;
  turn++;
  setCamera(false);
}

async function startCamera() {
  complain("");
  if (!navigator.mediaDevices) {
    complain("Browsers allow the camera only on pages opened over https or from a file.");
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    complain(error.name === "NotFoundError" ? "No camera was found." : "Access to the camera was denied: allow it in the browser's settings.");
    return;
  }
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  show($("photo"), false);
  setCamera(true);
  if (!holding) $("shoot").focus();
  const mine = ++turn;
  chosen = 0;
  while (stream && mine === turn) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
    if (!stream || mine !== turn) break;
    const frame = await createImageBitmap(video).catch(() => null);
    if (!frame) continue;
    try {
      const result = await ask("classify", { image: frame, codes: isTeaching, taught: isTeaching }, [frame]);
      if (mine !== turn) continue;
      if (isTeaching) frameCame(result);
      if (result.top) present(result);
    } catch (error) {
      complain(`${error.message}.`);
      stopCamera();
    }
  }
}

async function shoot() {
  const video = $("video");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  await look(await canvas.convertToBlob({ type: "image/png" }));
  $("choose").focus();
}

function endLive() {
  stopCamera();
  if ($("photo").hidden) reset();
  $("camera").focus();
}

