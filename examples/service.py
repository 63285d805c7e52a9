"""A web service: POST a photo, get its classes as JSON. Needs Flask (`pip install flask`).

flask --app examples/service.py run
curl --data-binary @photo.jpg http://127.0.0.1:5000/
"""

import flask

import squeezenet

app = flask.Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 20 << 20  # bytes of a photo
classifier = squeezenet.Classifier("imagenette")  # one for all threads; works after a fork


@app.post("/")
def classify():
    try:
        (best,) = classifier.predict([flask.request.get_data()], top=3)
    except squeezenet.SqueezeNetError as error:
        return {"error": str(error)}, 400
    return {"predictions": [{"label": p.label, "probability": p.probability} for p in best]}
