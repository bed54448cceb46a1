from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0004_all_weights")]

    operations = [
        migrations.AddField(
            model_name="preferencedataset",
            name="imported_from",
            field=models.CharField(blank=True, max_length=200),
        ),
    ]
